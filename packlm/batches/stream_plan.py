"""Windows of streams: which targets of every stream a step reads, cut where documents begin."""

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset.views import Array, Stream

MIN_WINDOW, STANDARD_DEVIATION, HALF_PROBABILITY = 5, 5.0, 0.05
"""Of sampled windows, as in AWD-LSTM: the shortest, the standard deviation, and how often half of `window` is the mean."""


class Windows:
    """Where the windows of a stream begin: all `window` long, or, with a `seed`, sampled anew in each epoch as in AWD-LSTM (Merity et al.
    2017, section 5): around `window`, now and then around half of it, so that the boundaries which gradients do not cross differ."""

    def __init__(self, longest: int, window: int, seed: int | None):
        """`longest`: targets of the longest stream."""
        self.longest, self.window, self.seed = longest, window, seed
        self._windows = np.arange(-(-longest // window) + 1) * window
        self._epoch = -1

    def of(self, epoch: int) -> Array:
        """[steps + 1] offsets into each stream at which the steps of an epoch begin, and the last ends."""
        if self.seed is not None and epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            shortest = min(MIN_WINDOW, self.window)
            count = -(-self.longest // shortest)
            means = np.where(generator.random(count) < HALF_PROBABILITY, self.window / 2, self.window)
            ends = np.cumsum(np.maximum(shortest, generator.normal(means, STANDARD_DEVIATION).astype(np.int64)))
            self._windows = np.concatenate([[0], ends[: np.searchsorted(ends, self.longest) + 1]])
            self._epoch = epoch
        return self._windows


class StreamPlan:
    """A window of every stream, one after the other: truncated back-propagation through time with carried state.

    Stream s of S holds targets [sN/S, (s+1)N/S). With `reset`, a window is cut where a document begins and what follows starts from zero,
    so neither state nor gradient crosses into another document.
    """

    unit = "targets"

    def __init__(self, stream: Stream, bounds: Array, window: int, reset: bool, seed: int | None = None):
        """`bounds`: [S + 1] where the streams start and the last ends; `seed`: that of sampled windows (`Windows`)."""
        self.stream, self.bounds = stream, bounds
        self.opens = stream.opens if reset else stream.opens[:0]
        self.streams = len(bounds) - 1
        self.windows = Windows(int(np.diff(bounds).max()), window, seed)

    @staticmethod
    def even(stream: Stream, streams: int, window: int, reset: bool, seed: int | None = None) -> "StreamPlan":
        """Streams of equal length, to one target."""
        if streams > len(stream):
            raise RequestError(f"train.streams: {streams} streams of a split of {len(stream):,} tokens; use fewer")
        return StreamPlan(stream, np.arange(streams + 1) * len(stream) // streams, window, reset, seed)

    @staticmethod
    def documents(stream: Stream, streams: int, window: int) -> "StreamPlan":
        """Streams of whole documents, of about equal length: each prediction sees its own document and nothing else."""
        even = np.arange(1, streams) * len(stream) // streams
        starts = np.append(stream.opens, len(stream))
        bounds = np.unique(np.concatenate([[0], starts[np.searchsorted(starts, even)], [len(stream)]]))
        return StreamPlan(stream, bounds, window, reset=True)

    def steps(self, epoch: int) -> int:
        return len(self.windows.of(epoch)) - 1

    def streams_of(self, part: int, parts: int) -> range:
        return streams_of(self.streams, part, parts)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        first, last = self.windows.of(epoch)[step : step + 2]
        starts, stops = (np.minimum(self.bounds[:-1] + offset, self.bounds[1:]) for offset in (first, last))
        running = starts < stops  # a stream that is one target shorter has ended
        begins, ends, owners = cut(starts[running], stops[running], self.opens)
        tokens, segments = int((stops - starts).sum()), len(begins)

        local_streams = self.streams_of(part, parts)
        streams = np.flatnonzero(running)[owners]  # of each segment
        local = (streams >= local_streams.start) & (streams < local_streams.stop)
        begins, ends, streams = begins[local], ends[local], streams[local] - local_streams.start
        continues = np.diff(streams, prepend=-1) > 0  # the first segment of its stream's window
        continues &= (first > 0) & ~among(begins, self.opens)
        initial_streams = np.where(continues, streams, -1)
        final_segments = np.full(len(local_streams), -1)
        final_segments[streams] = np.arange(len(begins))  # of a stream's segments the last is assigned last
        ids = self.stream.read(begins, ends)
        return Segments(*ids, ends - begins, begins, tokens, segments, initial_streams, final_segments, int(last - first))


def streams_of(streams: int, part: int, parts: int) -> range:
    """The streams of a part: stream s of S belongs to part floor(s * parts / S)."""
    owners = np.arange(streams) * parts // streams
    return range(int(np.searchsorted(owners, part)), int(np.searchsorted(owners, part + 1)))


def cut(starts: Array, stops: Array, opens: Array) -> tuple[Array, Array, Array]:
    """Cuts runs [start, stop), ascending and disjoint, at the `opens` inside them.

    Returns where the segments begin and end, and the index of the run that each belongs to.
    """
    lows, highs = np.searchsorted(opens, starts + 1), np.searchsorted(opens, stops)
    inside = [opens[low:high] for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
    begins = np.sort(np.concatenate([starts, *inside]))
    owners = np.searchsorted(starts, begins, side="right") - 1
    ends = np.minimum(np.append(begins[1:], np.iinfo(np.int64).max)[: len(begins)], stops[owners])
    return begins, ends, owners


def among(values: Array, opens: Array) -> Array:
    """Whether each of `values` is among `opens`, which ascend."""
    indices = np.searchsorted(opens, values)
    matches = np.zeros(len(values), bool)
    inside = indices < len(opens)
    matches[inside] = opens[indices[inside]] == values[inside]
    return matches

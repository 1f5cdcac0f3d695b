"""Windows of streams: which targets of every stream a step reads, cut where documents begin."""

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset.views import Array, Stream

SHORTEST, SPREAD, HALVED = 5, 5.0, 0.05
"""Of windows drawn as AWD-LSTM draws them: the least, the standard deviation, and how often half the usual window is the mean."""


class StreamPlan:
    """A window of every stream, one after the other: truncated back-propagation through time with the state carried over.

    Stream s of S holds targets [sN/S, (s+1)N/S) and belongs to part floor(s * parts / S). With `reset`, a window is cut where a document
    begins and what follows starts from zero, so neither state nor gradient crosses into another document.

    Windows are all `window` long, or, with a `seed`, drawn as in AWD-LSTM (Merity et al. 2017, section 5): around `window`, now and then
    around half of it, so that the states that gradients do not cross differ from epoch to epoch; the learning rate of a step goes with the
    length of its window.
    """

    unit = "targets"

    def __init__(self, stream: Stream, bounds: Array, window: int, reset: bool, seed: int | None = None):
        """`bounds`: [S + 1] where the streams start and the last ends."""
        self.stream, self.bounds, self.window, self.seed = stream, bounds, window, seed
        self.opens = stream.opens if reset else stream.opens[:0]
        self.streams = len(bounds) - 1
        self.longest = int(np.diff(bounds).max())
        self._windows = np.arange(-(-self.longest // window) + 1) * window
        self._epoch = -1

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

    def windows(self, epoch: int) -> Array:
        """[steps + 1] how far into each stream the steps of an epoch begin, and the last ends."""
        if self.seed is not None and epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            least = min(SHORTEST, self.window)
            draws = -(-self.longest // least)
            means = np.where(generator.random(draws) < HALVED, self.window / 2, self.window)
            ends = np.cumsum(np.maximum(least, generator.normal(means, SPREAD).astype(np.int64)))
            self._windows = np.concatenate([[0], ends[: np.searchsorted(ends, self.longest) + 1]])
            self._epoch = epoch
        return self._windows

    def steps(self, epoch: int) -> int:
        return len(self.windows(epoch)) - 1

    def streams_of(self, part: int, parts: int) -> range:
        owners = np.arange(self.streams) * parts // self.streams
        return range(int(np.searchsorted(owners, part)), int(np.searchsorted(owners, part + 1)))

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        first, last = self.windows(epoch)[step : step + 2]
        starts, stops = (np.minimum(self.bounds[:-1] + place, self.bounds[1:]) for place in (first, last))
        running = starts < stops  # a stream that is one target shorter has ended
        begins, ends, owners = cut(starts[running], stops[running], self.opens)
        tokens, segments = int((stops - starts).sum()), len(begins)

        own = self.streams_of(part, parts)
        numbers = np.flatnonzero(running)[owners]  # the stream of each segment
        mine = (numbers >= own.start) & (numbers < own.stop)
        begins, ends, slots = begins[mine], ends[mine], numbers[mine] - own.start
        goes_on = np.diff(slots, prepend=-1) > 0  # the first segment of its stream's window
        goes_on &= (first > 0) & ~_among(begins, self.opens)
        leave = np.full(len(own), -1)
        leave[slots] = np.arange(len(begins))  # the last one of a stream stays
        share = float(last - first) / self.window if self.seed is not None else 1.0
        read = self.stream.read(begins, ends)
        return Segments(*read, ends - begins, begins, tokens, segments, np.where(goes_on, slots, -1), leave, share)


def cut(starts: Array, stops: Array, opens: Array) -> tuple[Array, Array, Array]:
    """Cuts runs [start, stop), ascending and apart, at the `opens` inside them.

    Returns where the segments begin and end, and the run that each belongs to.
    """
    lows, highs = np.searchsorted(opens, starts + 1), np.searchsorted(opens, stops)
    inside = [opens[low:high] for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
    begins = np.sort(np.concatenate([starts, *inside]))
    owners = np.searchsorted(starts, begins, side="right") - 1
    ends = np.minimum(np.append(begins[1:], np.iinfo(np.int64).max)[: len(begins)], stops[owners])
    return begins, ends, owners


def _among(values: Array, opens: Array) -> Array:
    """Which of `values` are among `opens`, ascending."""
    places = np.searchsorted(opens, values)
    found = np.zeros(len(values), bool)
    inside = places < len(opens)
    found[inside] = opens[places[inside]] == values[inside]
    return found

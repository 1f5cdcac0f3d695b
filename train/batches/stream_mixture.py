"""Windows of streams of several datasets."""

from collections.abc import Sequence

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.batches.stream_plan import STANDARD_DEVIATION, Windows, among, cut, streams_of
from packlm.dataset.views import Stream


class StreamMixturePlan:
    """A window of every stream, as `StreamPlan`, where each dataset has a number of streams of its own.

    A stream that has been read to its end begins anew, from the zero state, in the middle of a window if need be: so all windows are full.
    The datasets' streams alternate, so that parts, which have streams side by side, have about the same mixture.
    """

    unit = "targets"

    def __init__(self, streams: Sequence[Stream], counts: Sequence[int], window: int, reset: bool, seed: int | None = None):
        """
        Args:
            streams: the targets of each dataset.
            counts: number of streams of each.
            seed: as of `StreamPlan`.

        Raises:
            RequestError: a stream is shorter than a window.
        """
        self.stream, self.streams = Stream.joined(streams), sum(counts)
        opens, begins, lengths, places = [], [], [], []
        first = 0
        for stream, count in zip(streams, counts, strict=True):
            bounds = np.arange(count + 1) * len(stream) // count
            begins.append(first + bounds[:-1])
            lengths.append(np.diff(bounds))
            places.append((np.arange(count) + 0.5) / count)
            opens.append(first + (stream.opens if reset else stream.opens[:0]))
            first += len(stream)
        order = np.argsort(np.concatenate(places), kind="stable")
        self.opens = np.concatenate(opens)
        self.begins, self.lengths = np.concatenate(begins)[order], np.concatenate(lengths)[order]
        """[S] first target and number of targets of each stream."""
        longest_window = window + (0 if seed is None else round(10 * STANDARD_DEVIATION))
        if self.lengths.min() < longest_window:
            raise RequestError(
                f"train.streams: a stream of {self.lengths.min():,} tokens is shorter than a window, {longest_window}; use fewer streams, "
                "or give that dataset a smaller share"
            )
        self.windows = Windows(-(-first // self.streams), window, seed)

    def steps(self, epoch: int) -> int:
        return len(self.windows.of(epoch)) - 1

    def streams_of(self, part: int, parts: int) -> range:
        return streams_of(self.streams, part, parts)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        window = np.diff(self.windows.of(epoch)[step : step + 2]).item()
        first, last = epoch * self.windows.longest + np.minimum(self.windows.of(epoch)[step : step + 2], self.windows.longest)
        positions = first % self.lengths
        whole = np.minimum(last - first, self.lengths - positions)
        # What each stream reads before its end, then what it reads from its beginning on.
        starts = np.concatenate([self.begins + positions, self.begins])
        stops = starts + np.concatenate([whole, last - first - whole])
        streams, continued = np.tile(np.arange(self.streams), 2), np.concatenate([positions > 0, np.zeros(self.streams, bool)])
        runs = np.flatnonzero(starts < stops)
        runs = runs[np.argsort(starts[runs])]
        begins, ends, owners = cut(starts[runs], stops[runs], self.opens)
        runs = runs[owners]  # of each segment

        in_time = np.lexsort((begins, runs))
        begins, ends, runs = begins[in_time], ends[in_time], runs[in_time]
        local_streams = self.streams_of(part, parts)
        local = (streams[runs] >= local_streams.start) & (streams[runs] < local_streams.stop)
        tokens, segments = int(last - first) * self.streams, len(begins)
        begins, ends, runs = begins[local], ends[local], runs[local]
        local_stream = streams[runs] - local_streams.start
        continues = (begins == starts[runs]) & continued[runs] & ~among(begins, self.opens)
        final_segments = np.full(len(local_streams), -1)
        final_segments[local_stream] = np.arange(len(begins))  # of a stream's segments the last is assigned last
        ids, initial_streams = self.stream.read(begins, ends), np.where(continues, local_stream, -1)
        return Segments(*ids, ends - begins, begins, tokens, segments, initial_streams, final_segments, window)

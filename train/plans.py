"""Which segments make a batch: a pure function of (seed, epoch, step).

A plan knows how many steps an epoch has and names the segments of each global batch; it never asks which rank it runs on. Every kind
of training is one plan: sentences of like length, shuffled fixed rows, or a window of every stream. A global batch is run in parts, one
or more to a rank: `share(epoch, step, part, parts)` is one of them.
"""

import itertools
import logging
from typing import Protocol

import numpy as np

from pipeline import config
from pipeline.errors import RequestError
from train.batches import Segments
from train.views import Array, Sentences, Stream

log = logging.getLogger("packlm")

SHORTEST, SPREAD, HALVED = 5, 5.0, 0.05
"""Of windows drawn as AWD-LSTM draws them: the least, the standard deviation, and how often half the usual window is the mean."""


class Plan(Protocol):
    """The batches of a training."""

    unit: str
    """What the keys of its segments number."""
    streams: int
    """Streams whose state is carried; 0 if none is."""

    def steps(self, epoch: int) -> int:
        """Global batches in an epoch."""
        ...

    def streams_of(self, part: int, parts: int) -> range:
        """The streams of a part."""
        ...

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        """A part of what is run in a step: possibly nothing (no segments)."""
        ...


class _Stateless:
    """A plan whose segments all start from zero."""

    streams = 0

    def streams_of(self, part: int, parts: int) -> range:
        return range(0)


class SentencePlan(_Stateless):
    """Sentences of like length together, about `tokens` in a global batch, in an order drawn anew each epoch.

    A global batch is dealt out like cards, longest first, so its parts are equal in tokens to one sentence and their longest sentences are
    the longest of the batch: no part waits for another. Resident memory: 4 bytes a sentence for its place in the epoch's order, besides
    the lengths.
    """

    unit = "sentences"

    def __init__(self, sentences: Sentences, tokens: int, seed: int, on_overlong: str = "error"):
        """`on_overlong`: what to do with sentences of more than `tokens`: error, or cut (pieces of at most `tokens`, each from zero)."""
        self.sentences, self.seed = sentences, seed
        self.lengths = sentences.lengths
        self._rest = np.zeros((2, 0), np.int64)
        longest = int(sentences.lengths.max())
        if longest > tokens:
            if on_overlong == "error":
                raise RequestError(
                    f"train.global_batch_tokens: {tokens:,} is less than the longest sentence, {longest:,} tokens; "
                    'raise it, cut such sentences with train.on_overlong = "cut", or split them in preprocessing with corpus.max_tokens'
                )
            self._cut(tokens)
        self._counts = _lengths_counted(self.lengths)
        self._order = np.zeros(0, np.uint32)
        self._bounds = _bounds(self._counts, tokens)
        self._epoch = -1

    def _cut(self, tokens: int) -> None:
        """Sentences keep their first `tokens`; what is left of overlong ones follows as further sentences, with numbers of their own."""
        long = np.flatnonzero(self.sentences.lengths > tokens)
        whole = self.sentences.lengths[long].astype(np.int64)
        pieces = [(index, np.arange(tokens, length, tokens)) for index, length in zip(long.tolist(), whole.tolist(), strict=True)]
        starts = np.concatenate([starts for _, starts in pieces])
        indices = np.concatenate([np.full(len(starts), index) for index, starts in pieces])
        self._rest = np.stack([indices, starts])
        left = np.minimum(self.sentences.lengths[indices] - starts, tokens)
        self.lengths = np.concatenate([np.minimum(self.sentences.lengths, tokens), left.astype(np.int32)])
        log.info("%s sentences longer than train.global_batch_tokens are cut, into %s more pieces", f"{len(long):,}", f"{len(starts):,}")

    def steps(self, epoch: int) -> int:
        return len(self._bounds) - 1

    def indices(self, epoch: int, step: int) -> Array:
        """The sentences of a global batch, shortest first."""
        if epoch != self._epoch:
            self._order = np.zeros(0, np.uint32)  # rather than two at a time
            self._order = _by_length(self.lengths, self._counts)
            shuffled = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            for first, last in itertools.pairwise([0, *np.cumsum(self._counts).tolist()]):
                shuffled.shuffle(self._order[first:last])
            self._batches = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 2**32])).permutation(self.steps(epoch))
            self._epoch = epoch
        batch = self._batches[step]
        return self._order[self._bounds[batch] : self._bounds[batch + 1]].astype(np.int64)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        indices = self.indices(epoch, step)
        mine = indices[::-1][part::parts]
        lengths, further = self.lengths[mine].astype(np.int64), mine - len(self.sentences)
        inner = further >= 0
        numbers, starts = mine.copy(), np.zeros(len(mine), np.int64)
        numbers[inner], starts[inner] = self._rest[:, further[inner]]
        tokens = int(self.lengths[indices].sum(dtype=np.int64))
        return Segments(*self.sentences.pieces(numbers, starts, lengths), lengths, mine, tokens, len(indices))


class RowPlan(_Stateless):
    """Fixed rows in an order drawn anew each epoch, each cut where a document begins."""

    unit = "targets"

    def __init__(self, stream: Stream, length: int, tokens: int, seed: int):
        self.stream, self.seed = stream, seed
        if length > tokens:
            raise RequestError(f"train.global_batch_tokens: {tokens:,} is less than a row, {length:,} tokens; raise it")
        self._rows = tokens // length
        self._epoch = -1

    def steps(self, epoch: int) -> int:
        return -(-self.stream.num_rows // self._rows)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._order, self._epoch = np.arange(self.stream.num_rows, dtype=np.uint32), epoch
            generator.shuffle(self._order)
        rows = np.sort(self._order[step * self._rows : (step + 1) * self._rows])
        starts, stops = self.stream.rows(rows)
        begins, ends, owners = _cut(starts, stops, self.stream.opens)
        tokens, segments, mine = int((stops - starts).sum()), len(begins), owners % parts == part
        begins, ends = begins[mine], ends[mine]
        return Segments(*self.stream.read(begins, ends), ends - begins, begins, tokens, segments)


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
        begins, ends, owners = _cut(starts[running], stops[running], self.opens)
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


def build(settings: config.Train, sentences: Sentences | None, stream: Stream | None, length: int, seed: int) -> Plan:
    """The plan of `train.segments`: over the sentences of the split, or over its fixed view with rows of `length`."""
    if sentences is not None:
        return SentencePlan(sentences, settings.global_batch_tokens, seed, settings.on_overlong)
    assert stream is not None
    if settings.segments == "rows":
        return RowPlan(stream, length, settings.global_batch_tokens, seed)
    drawn = seed if settings.window_drawn else None
    return StreamPlan.even(stream, settings.streams, settings.window, settings.reset == "document", drawn)


def _cut(starts: Array, stops: Array, opens: Array) -> tuple[Array, Array, Array]:
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


_BLOCK = 1 << 17
"""Sentences sorted at a time: what a sort needs besides its result stays small."""


def _lengths_counted(lengths: Array) -> Array:
    """[longest + 1] how many sentences have each length."""
    blocks = (lengths[first : first + _BLOCK] for first in range(0, len(lengths), _BLOCK))
    return sum((np.bincount(block, minlength=int(lengths.max()) + 1) for block in blocks), np.zeros(int(lengths.max()) + 1, np.int64))


def _by_length(lengths: Array, counts: Array) -> Array:
    """[S] uint32: the sentences, shortest first, those of equal length in order (a counting sort, block by block)."""
    order = np.empty(len(lengths), np.uint32)
    places = np.cumsum(counts) - counts
    for first in range(0, len(lengths), _BLOCK):
        block = lengths[first : first + _BLOCK]
        local = np.argsort(block, kind="stable")
        values, starts, found = np.unique(block[local], return_index=True, return_counts=True)
        order[np.repeat(places[values] - starts, found) + np.arange(len(block))] = first + local
        places[values] += found
    return order


def _bounds(counts: Array, tokens: int) -> Array:
    """Where batches begin among the sentences sorted by length, and the last ends: batch b holds those that start within
    [b, b + 1) * tokens, whichever of equal length come first."""
    lengths = np.flatnonzero(counts)
    numbers = counts[lengths]
    ends = np.cumsum(numbers * lengths)
    edges = np.arange(tokens, ends[-1], tokens)
    group = np.searchsorted(ends, edges, side="right")
    within = -(-(edges - (ends - numbers * lengths)[group]) // lengths[group])
    return np.unique(np.concatenate([[0], (np.cumsum(numbers) - numbers)[group] + within, [counts.sum()]]))

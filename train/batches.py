"""Which segments make a batch: a pure function of (seed, epoch, step), then a rank's share of them, then tensors.

A plan knows how many steps an epoch has and names the segments of each global batch; it never asks which rank it runs on. Every kind
of training is one plan: sentences of like length, shuffled fixed rows, or a window of every stream.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from pipeline.errors import RequestError
from train.model import Batch
from train.noise import Noise
from train.views import Array, Sentences, Stream


@dataclass(frozen=True)
class Segments:
    """A rank's share of a global batch, as arrays."""

    inputs: list[Array]
    """Ids read by each segment."""
    targets: list[Array]
    """Ids predicted by each."""
    keys: list[int]
    """A number for each segment that is the same in any share: what its dropout is hashed from."""
    global_tokens: int
    """Targets of the global batch, over all ranks."""
    global_segments: int
    """Segments of the global batch."""
    take: list[int] = field(default_factory=list)
    """Streams: for each segment, the stream of this rank whose state it starts from, -1 to start from zero."""
    leave: list[int] = field(default_factory=list)
    """Streams: for each stream of this rank, the segment whose final state it takes over, -1 to keep what it has."""

    def batch(self, device: torch.device, noise: tuple[int, int, bool] | None = None) -> Batch:
        """The segments as tensors on `device`; with the hashes for dropout of (seed, step, locked) if that is given."""
        lengths = np.array([len(targets) for targets in self.targets], np.int64)
        inputs, targets = (np.concatenate(parts).astype(np.int64) for parts in (self.inputs, self.targets))
        drawn = None
        if noise is not None:
            seed, step, locked = noise
            drawn = Noise.of(seed, step, np.array(self.keys), lengths, inputs, locked).to(device)
        return Batch(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device), lengths, drawn, carry=bool(self.leave))


class Plan(Protocol):
    """The batches of a training."""

    num_steps: int
    """Global batches in an epoch."""
    streams: int
    """Streams whose state is carried; 0 if none is."""

    def mine(self, rank: int, world: int) -> range:
        """The streams of a rank."""
        ...

    def share(self, epoch: int, step: int, rank: int, world: int) -> Segments:
        """What `rank` of `world` runs in a step: possibly nothing (no segments)."""
        ...


class _Stateless:
    """A plan whose segments all start from zero."""

    streams = 0

    def mine(self, rank: int, world: int) -> range:
        return range(0)


class SentencePlan(_Stateless):
    """Sentences of like length together, about `tokens` in a global batch, in an order drawn anew each epoch."""

    def __init__(self, sentences: Sentences, tokens: int, seed: int):
        self.sentences, self.seed = sentences, seed
        longest = int(sentences.lengths.max())
        if longest > tokens:
            raise RequestError(
                f"train.global_batch_tokens: {tokens:,} is less than the longest sentence, {longest:,} tokens; "
                "raise it, or split the text into shorter sentences"
            )
        sorted_lengths = np.sort(sentences.lengths).astype(np.int64)
        # Batch b holds the sentences that start within [b, b + 1) times the budget, whichever of equal length come first.
        starts = np.cumsum(sorted_lengths) - sorted_lengths
        self._bounds = np.append(np.flatnonzero(np.diff(starts // tokens, prepend=-1)), len(sorted_lengths))
        self.num_steps = len(self._bounds) - 1
        self._epoch = -1

    def indices(self, epoch: int, step: int) -> Array:
        """The sentences of a global batch, shortest first."""
        if epoch != self._epoch:
            order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.sentences)).astype(np.uint32)
            self._order = order[np.argsort(self.sentences.lengths[order], kind="stable")]
            self._batches = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 2**32])).permutation(self.num_steps)
            self._epoch = epoch
        batch = self._batches[step]
        return self._order[self._bounds[batch] : self._bounds[batch + 1]]

    def share(self, epoch: int, step: int, rank: int, world: int) -> Segments:
        indices = self.indices(epoch, step)
        lengths = self.sentences.lengths[indices].astype(np.int64)
        mine = indices[equal_shares(lengths, rank, world)]
        segments = Segments([], [], mine.tolist(), int(lengths.sum()), len(indices))
        for index in segments.keys:
            inputs, targets = self.sentences.read(index)
            segments.inputs.append(inputs)
            segments.targets.append(targets)
        return segments


class RowPlan(_Stateless):
    """Fixed rows in an order drawn anew each epoch, each cut where a document begins."""

    def __init__(self, stream: Stream, length: int, tokens: int, seed: int):
        self.stream, self.seed = stream, seed
        if length > tokens:
            raise RequestError(f"train.global_batch_tokens: {tokens:,} is less than a row, {length:,} tokens; raise it")
        self._rows = tokens // length
        self.num_steps = -(-stream.num_rows // self._rows)
        self._epoch = -1

    def share(self, epoch: int, step: int, rank: int, world: int) -> Segments:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._order, self._epoch = generator.permutation(self.stream.num_rows), epoch
        rows = [self.stream.row(int(number)) for number in self._order[step * self._rows : (step + 1) * self._rows]]
        starts, stops = np.array(rows).T
        lengths = stops - starts
        cuts = self.stream.cuts_within(starts, stops)
        segments = Segments([], [], [], int(lengths.sum()), len(rows) + int(cuts.sum()))
        for start, stop in np.array(rows)[equal_shares(lengths, rank, world)].tolist():
            _append(segments, self.stream, self.stream.cuts(start, stop))
        return segments


class StreamPlan:
    """A window of every stream, one after the other: truncated back-propagation through time with the state carried over.

    Stream s of S holds targets [sN/S, (s+1)N/S) and belongs to rank floor(sW/S). With `reset`, a window is cut where a document begins
    and what follows starts from zero, so neither state nor gradient crosses into another document.
    """

    def __init__(self, stream: Stream, bounds: Array, window: int, reset: bool):
        """`bounds`: [S + 1] where the streams start and the last ends."""
        self.stream, self.bounds, self.window, self.reset = stream, bounds, window, reset
        self.streams = len(bounds) - 1
        self.num_steps = -(-int(np.diff(bounds).max()) // window)

    @staticmethod
    def even(stream: Stream, streams: int, window: int, reset: bool) -> "StreamPlan":
        """Streams of equal length, to one target."""
        if streams > len(stream):
            raise RequestError(f"train.streams: {streams} streams of a split of {len(stream):,} tokens; use fewer")
        return StreamPlan(stream, np.arange(streams + 1) * len(stream) // streams, window, reset)

    @staticmethod
    def documents(stream: Stream, streams: int, window: int) -> "StreamPlan":
        """Streams of whole documents, of about equal length: each prediction sees its own document and nothing else."""
        even = np.arange(1, streams) * len(stream) // streams
        starts = np.append(stream.opens, len(stream))
        bounds = np.unique(np.concatenate([[0], starts[np.searchsorted(starts, even)], [len(stream)]]))
        return StreamPlan(stream, bounds, window, reset=True)

    def mine(self, rank: int, world: int) -> range:
        """The streams of a rank."""
        owners = np.arange(self.streams) * world // self.streams
        return range(int(np.searchsorted(owners, rank)), int(np.searchsorted(owners, rank + 1)))

    def share(self, epoch: int, step: int, rank: int, world: int) -> Segments:
        starts = np.minimum(self.bounds[:-1] + step * self.window, self.bounds[1:])
        stops = np.minimum(starts + self.window, self.bounds[1:])
        cuts = self.stream.cuts_within(starts, stops) if self.reset else np.zeros(1)
        segments = Segments([], [], [], int((stops - starts).sum()), int((stops > starts).sum() + cuts.sum()))
        for slot, number in enumerate(self.mine(rank, world)):
            start, stop = int(starts[number]), int(stops[number])
            if start == stop:  # this stream is one target shorter and has ended
                segments.leave.append(-1)
                continue
            cuts = self.stream.cuts(start, stop) if self.reset else np.array([start, stop])
            fresh = step == 0 or (self.reset and self.stream.opens_at(start))
            segments.take.extend([-1 if fresh else slot] + [-1] * (len(cuts) - 2))
            _append(segments, self.stream, cuts)
            segments.leave.append(len(segments.targets) - 1)
        return segments


def _append(segments: Segments, stream: Stream, cuts: Array) -> None:
    """Adds the segments between consecutive cuts."""
    inputs, targets = stream.read(int(cuts[0]), int(cuts[-1]))
    inner = cuts[1:-1] - cuts[0]
    segments.inputs.extend(np.split(inputs, inner))
    segments.targets.extend(np.split(targets, inner))
    segments.keys.extend(cuts[:-1].tolist())


def equal_shares(lengths: Array, rank: int, world: int) -> slice:
    """The consecutive segments that rank takes of a global batch: shares equal in tokens, to one segment."""
    middles = np.cumsum(lengths) - lengths / 2
    owners = np.minimum((middles * world / lengths.sum()).astype(np.int64), world - 1)
    return slice(int(np.searchsorted(owners, rank)), int(np.searchsorted(owners, rank + 1)))

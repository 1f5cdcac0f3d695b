"""Which segments make a batch: a pure function of (seed, epoch, step).

A plan knows the number of steps of an epoch and the segments of each global batch, and nothing of ranks. Every `train.segments` is one
plan: sentences of similar length, shuffled fixed rows, or a window of every stream. A global batch is run in parts, one or more per
rank: `share(epoch, step, part, parts)` is one of them.
"""

from typing import Protocol

from packlm.batches.segments import Segments


class Plan(Protocol):
    """The batches of a training."""

    unit: str
    """What the keys of its segments count: sentences or targets."""
    streams: int
    """Number of streams whose state is carried from step to step; 0 for none."""

    def steps(self, epoch: int) -> int:
        """Number of global batches in an epoch."""
        ...

    def streams_of(self, part: int, parts: int) -> range:
        """The streams of a part."""
        ...

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        """The segments of one part of a global batch; there may be none."""
        ...


class StatelessPlan:
    """A plan whose segments all start from the zero state."""

    streams = 0

    def streams_of(self, part: int, parts: int) -> range:
        return range(0)

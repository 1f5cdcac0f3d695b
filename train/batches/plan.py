"""Which segments make a batch: a pure function of (seed, epoch, step).

A plan knows how many steps an epoch has and names the segments of each global batch; it never asks which rank it runs on. Every kind
of training is one plan: sentences of like length, shuffled fixed rows, or a window of every stream. A global batch is run in parts, one
or more to a rank: `share(epoch, step, part, parts)` is one of them.
"""

from typing import Protocol

from packlm.batches.segments import Segments


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


class Stateless:
    """A plan whose segments all start from zero."""

    streams = 0

    def streams_of(self, part: int, parts: int) -> range:
        return range(0)

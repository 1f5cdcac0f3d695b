"""One step of a training: the parts of its global batch, what the ranks sum, and its results."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from packlm.batches.segments import Segments
from packlm.distributed import Ranks
from packlm.model.language_model import Batch


class BatchPart(NamedTuple):
    """A part of a global batch, on the device."""

    segments: Segments
    batch: Batch
    is_dummy: bool
    """Whether it takes part in the reduction of the gradients only, and counts nothing."""


@dataclass
class StepSums:
    """What an update sums over all ranks, in one reduction."""

    part_nll: list[float]
    """Summed loss of each part of the global batch, in nats."""
    padded_tokens: float = 0.0
    """Size of the rectangles that hold the parts, in tokens."""
    stop: float = 0.0
    """Ranks that were told to stop."""

    def reduce(self, ranks: Ranks) -> "StepSums":
        """All ranks: the sums over the ranks."""
        *part_nll, padded_tokens, stop = ranks.sum(np.array([*self.part_nll, self.padded_tokens, self.stop])).tolist()
        return StepSums(part_nll, padded_tokens, stop)


@dataclass(frozen=True)
class Update:
    """Results of one update, over all ranks."""

    nll: float
    """Summed loss of the global batch, in nats."""
    tokens: int
    norm: float | None
    """Gradient norm before clipping; None if fp16 overflowed and the update was skipped."""
    fill: float
    """Share of tokens in the rectangles that hold the parts of the batch."""
    data_seconds: float
    """Time in which this rank made its batches."""
    lr: float
    stop: bool
    """Whether a rank was told to stop."""


def dummy_segment(segments: Segments) -> Segments:
    """A segment of one token, to be weighted with 0, in place of no segments: every part takes part in the reduction of the gradients."""
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    initial_streams = -one if len(segments.final_segments) else segments.initial_streams
    return replace(segments, inputs=zero, targets=zero, lengths=one, keys=zero, initial_streams=initial_streams)

"""A batch: a list of segments as arrays, then as tensors.

Shapes: B segments, P targets of all of them, end to end, S streams.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from packlm.dataset.views import Array
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.language_model import Batch


def _empty() -> Array:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Segments:
    """One part of a global batch, as arrays."""

    inputs: Array
    """[P] ids read."""
    targets: Array
    """[P] ids predicted."""
    lengths: Array
    """[B] targets of each segment."""
    keys: Array
    """[B] a number for each segment that is the same in any part: what its dropout is hashed from."""
    global_tokens: int = 0
    """Targets of the global batch, over all its parts."""
    global_segments: int = 0
    """Segments of the global batch."""
    initial_streams: Array = field(default_factory=_empty)
    """Streams: [B] the stream (of this part) whose state each segment starts from; -1: zero."""
    final_segments: Array = field(default_factory=_empty)
    """Streams: [S] the segment whose final state each stream (of this part) carries on; -1: the stream keeps its state."""
    window: int = 0
    """Streams: length of the step's window, in targets of each stream."""

    def batch(self, device: torch.device, dropout: tuple[int, int, bool] | None = None) -> Batch:
        """The segments as tensors on `device`; `dropout`: (seed, step, locked) of the hashes that decide what is dropped."""
        dropout_hashes = None
        if dropout is not None:
            seed, step, locked = dropout
            dropout_hashes = DropoutHashes.of(seed, step, self.keys, self.lengths, self.inputs, locked).to(device)
        inputs, targets = (torch.from_numpy(ids).to(device) for ids in (self.inputs, self.targets))
        return Batch(inputs, targets, self.lengths, dropout_hashes, return_state=len(self.final_segments) > 0)

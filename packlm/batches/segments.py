"""A batch: a list of segments as arrays, then as tensors.

Shapes: B segments, P targets of all of them, end to end, S streams.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from packlm.dataset.views import Array
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.language_model import Batch


def _none() -> Array:
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
    take: Array = field(default_factory=_none)
    """Streams: [B] for each segment, the stream of this part whose state it starts from, -1 to start from zero."""
    leave: Array = field(default_factory=_none)
    """Streams: [S] for each stream of this part, the segment whose final state it takes over, -1 to keep what it has."""
    lr_share: float = 1.0
    """What the learning rate of the step is multiplied by."""

    def batch(self, device: torch.device, noise: tuple[int, int, bool] | None = None) -> Batch:
        """The segments as tensors on `device`; with the hashes for dropout of (seed, step, locked) if that is given."""
        drawn = None
        if noise is not None:
            seed, step, locked = noise
            drawn = DropoutHashes.of(seed, step, self.keys, self.lengths, self.inputs, locked).to(device)
        inputs, targets = (torch.from_numpy(ids).to(device) for ids in (self.inputs, self.targets))
        return Batch(inputs, targets, self.lengths, drawn, return_state=len(self.leave) > 0)

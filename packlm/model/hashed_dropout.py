"""Counter-based random numbers: hashes of where they are used (seed, step, layer, segment, time, unit).

So a dropout mask or a sample is the same on any number of processes, in any layout and after any restart; there is no state to save.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOCKED, _WORDS, _WEIGHTS = -1, -2, -3
"""In place of a time or a segment, neither of which is negative."""


def scramble(*keys: Any) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Hashes broadcast integer keys to uniform uint64 (the finalizer of splitmix64; Steele, Lea and Flood 2014, figure 17)."""
    value = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64
        for key in keys:
            value = value + _GOLDEN + np.asarray(key).astype(np.uint64)
            value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            value = value ^ (value >> np.uint64(31))
    return value


def uniform(*keys: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Hashes broadcast integer keys to uniform numbers in (0, 1)."""
    return ((scramble(*keys) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def upper_halves(hashes: np.ndarray) -> Tensor:
    """The upper halves of uint64 hashes, as int32."""
    return torch.from_numpy((hashes >> np.uint64(32)).astype(np.uint32).view(np.int32))


@dataclass(frozen=True)
class DropoutHashes:
    """The hashes that decide what is dropped in a batch of one step."""

    seed: int
    step: int
    rows: Tensor
    """[P] int32 for each row of the batch, in segment order: a hash of (seed, step, segment, time), without the time if dropout is
    locked."""
    words: Tensor
    """[P] int32 for the id that each row reads: a hash of (seed, step, id)."""

    @staticmethod
    def of(seed: int, step: int, segments: np.ndarray, lengths: np.ndarray, ids: np.ndarray, locked: bool) -> "DropoutHashes":
        """The hashes of a batch.

        Args:
            segments: [B] a number for each segment that does not depend on the batch (its index in the split).
            lengths: [B] time steps of each segment.
            ids: [P] ids read, in segment order.
            locked: all rows of a segment have the same hash.
        """
        times = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = scramble(seed, step, np.repeat(segments, lengths), _LOCKED if locked else times)
        return DropoutHashes(seed, step, upper_halves(rows), upper_halves(scramble(seed, step, _WORDS, ids)))

    def to(self, device: torch.device) -> "DropoutHashes":
        """A copy on another device."""
        return replace(self, rows=self.rows.to(device), words=self.words.to(device))

    def weight_rows(self, layer: int, count: int) -> Tensor:
        """[count] int32 for each row of a layer's recurrent weights: a hash of (seed, step, layer, row)."""
        return upper_halves(scramble(self.seed, self.step, _WEIGHTS, layer, np.arange(count)))

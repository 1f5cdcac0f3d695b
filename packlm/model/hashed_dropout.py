"""Random numbers that are a function of where they are used, not of how many were drawn before.

A mask or a draw is a hash of where it falls (seed, step, layer, segment, time, unit), so it is the same on one process or eight, in
whatever layout the batch runs, and after any restart; nothing has to be saved.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOCKED, _WORDS, _WEIGHTS = -1, -2, -3
"""Stand where a time or a segment stands otherwise, and are none."""


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


def hashes_of(numbers: np.ndarray) -> Tensor:
    """The upper halves of uniform uint64, as int32."""
    return torch.from_numpy((numbers >> np.uint64(32)).astype(np.uint32).view(np.int32))


@dataclass(frozen=True)
class DropoutHashes:
    """The hashes that decide what is dropped in one step."""

    seed: int
    step: int
    rows: Tensor
    """[P] int32 for each row of the batch, segment after segment: a hash of (seed, step, segment, time); of the segment alone where
    dropout is locked."""
    words: Tensor
    """[P] int32 for the word that each row reads: a hash of (seed, step, word)."""

    @staticmethod
    def of(seed: int, step: int, segments: np.ndarray, lengths: np.ndarray, ids: np.ndarray, locked: bool) -> "DropoutHashes":
        """The hashes of a batch.

        Args:
            segments: [B] a number for each segment that is the same wherever it runs (its place in the split).
            lengths: [B] time steps of each segment.
            ids: [P] words read, segment after segment.
            locked: a segment's rows share one hash.
        """
        times = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = scramble(seed, step, np.repeat(segments, lengths), _LOCKED if locked else times)
        return DropoutHashes(seed, step, hashes_of(rows), hashes_of(scramble(seed, step, _WORDS, ids)))

    def to(self, device: torch.device) -> "DropoutHashes":
        """The same on another device."""
        return replace(self, rows=self.rows.to(device), words=self.words.to(device))

    def weight_rows(self, layer: int, count: int) -> Tensor:
        """[count] int32 for each row of a layer's recurrent weights: a hash of (seed, step, layer, row)."""
        return hashes_of(scramble(self.seed, self.step, _WEIGHTS, layer, np.arange(count)))

"""Random numbers that are a function of where they are used, not of how many were drawn before.

A mask or a draw is a hash of (seed, step, layer, segment, time, unit), so it is the same on one process or eight, in whatever
layout the batch runs, and after any restart; nothing has to be saved.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


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


def row_noise(seed: int, step: int, segments: np.ndarray, lengths: np.ndarray) -> Tensor:
    """[P] int32: a hash for each row (a segment's time step) of a batch, segment after segment.

    Args:
        segments: [B] a number for each segment that is the same wherever it runs (its place in the split).
        lengths: [B] time steps of each segment.
    """
    times = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    hashes = scramble(seed, step, np.repeat(segments, lengths), times)
    return torch.from_numpy((hashes >> np.uint64(32)).astype(np.uint32).view(np.int32))


@lru_cache(maxsize=64)
def _units(layer: int, width: int, device: torch.device) -> Tensor:
    hashes = scramble(layer, np.arange(width)) >> np.uint64(32)
    return torch.from_numpy(hashes.astype(np.uint32).view(np.int32)).to(device)


def dropout(rows: Tensor, noise: Tensor, layer: int, share: float) -> Tensor:
    """Zeroes a share of the units of each row and scales the others by 1 / (1 - share) (Srivastava et al. 2014).

    Args:
        rows: [R, H] values.
        noise: [R] int32 from `row_noise`, in the order of `rows`.
        layer: tells the places of dropout in a model apart.
    """
    # Row and unit hashes are each uniform; two multiplications mix their exclusive or, modulo 2^32 (as in murmur3's finalizer).
    bits = noise[:, None] ^ _units(layer, rows.shape[1], rows.device)
    bits.mul_(-2048144789).bitwise_xor_((bits >> 13) & 0x7FFFF).mul_(-1028477387)
    kept = bits >= int(share * 2**32) - 2**31
    return rows * kept.to(rows.dtype).mul_(1 / (1 - share))

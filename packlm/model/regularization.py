"""What keeps a recurrent language model from learning its text by heart (Merity, Keskar and Socher 2017, section 4).

All masks are hashes of where they fall (`noise`), so they are the same in any layout, on any number of ranks, after any restart.

Shapes: R rows (tokens), H units.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from packlm.model.hashed_dropout import DropoutHashes, hashes_of, scramble


@lru_cache(maxsize=64)
def _units(layer: int, width: int, device: torch.device) -> Tensor:
    return hashes_of(scramble(layer, np.arange(width))).to(device)


def dropout(rows: Tensor, hashes: Tensor, place: int, share: float) -> Tensor:
    """Zeroes a share of the units of each row and scales the others by 1 / (1 - share) (Srivastava et al. 2014).

    Where the hashes leave the time out (locked dropout), a segment loses the same units at every time step: variational
    dropout (Gal and Ghahramani 2016).

    Args:
        rows: [R, H] values.
        hashes: [R] int32, in the order of `rows`.
        place: tells the places of dropout in a model apart.
    """
    if not share:
        return rows
    # Row and unit hashes are each uniform; two multiplications mix their exclusive or, modulo 2^32 (as in murmur3's finalizer).
    bits = hashes[:, None] ^ _units(place, rows.shape[1], rows.device)
    bits.mul_(-2048144789).bitwise_xor_((bits >> 13) & 0x7FFFF).mul_(-1028477387)
    return rows * _kept(bits, share, rows.dtype)


def drop_words(rows: Tensor, hashes: Tensor, share: float) -> Tensor:
    """Zeroes the vectors [R, D] of a share of the words, each wherever it occurs in the step, and scales the others (Gal and Ghahramani
    2016). `hashes`: [R] int32, one for each row's word (`DropoutHashes.words`)."""
    return rows * _kept(hashes, share, rows.dtype)[:, None] if share else rows


def drop_weights(weight: Tensor, noise: DropoutHashes, layer: int, share: float) -> Tensor:
    """Zeroes a share of a layer's recurrent weights [G * H, H] for the whole of a step and scales the others: DropConnect on the
    hidden-to-hidden matrices (Wan et al. 2013), the weight drop of AWD-LSTM."""
    return dropout(weight, noise.weight_rows(layer, len(weight)).to(weight.device), layer, share) if share else weight


def activation(rows: Tensor) -> Tensor:
    """AR: the mean square of the units of each row [R, D], summed over the rows; of what the softmax gets, dropout included."""
    return rows.square().mean(1).sum(dtype=torch.float64)


def temporal_activation(rows: Tensor, lengths: np.ndarray) -> Tensor:
    """TAR: the mean square of what the units of each row [R, D] have changed since the time step before in its segment, summed over
    the rows; of the last layer's output before dropout. `lengths`: rows of each segment; its first row has none before it."""
    inside = torch.ones(len(rows), dtype=torch.bool)
    inside[torch.from_numpy(np.cumsum(lengths) - lengths)] = False
    changes = (rows[1:] - rows[:-1]).square().mean(1)
    return torch.where(inside[1:].to(rows.device), changes, 0.0).sum(dtype=torch.float64)


def _kept(bits: Tensor, share: float, dtype: torch.dtype) -> Tensor:
    """1 / (1 - share) where uniform int32 are in the upper part, 0 in the lowest `share`."""
    return (bits >= int(share * 2**32) - 2**31).to(dtype).mul_(1 / (1 - share))

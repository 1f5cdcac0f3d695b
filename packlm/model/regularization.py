"""Regularization of recurrent language models (Merity, Keskar and Socher 2017, section 4).

All masks are hashes of where they fall (`hashed_dropout`), so they are the same in any layout, on any number of ranks, after any restart.

Shapes: R rows (tokens), H units.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from packlm.model.hashed_dropout import DropoutHashes, scramble, upper_halves


@lru_cache(maxsize=64)
def _unit_hashes(layer: int, width: int, device: torch.device) -> Tensor:
    return upper_halves(scramble(layer, np.arange(width))).to(device)


def dropout(rows: Tensor, hashes: Tensor, layer: int, rate: float) -> Tensor:
    """Zeroes units at random and scales the others by 1 / (1 - rate) (Srivastava et al. 2014).

    With hashes that do not depend on the time (locked dropout), a segment loses the same units at every time step: variational
    dropout (Gal and Ghahramani 2016).

    Args:
        rows: [R, H] values.
        hashes: [R] int32, one for each row.
        layer: the layer that the rows enter, or the number of layers for the softmax; masks of different layers are independent.
    """
    if not rate:
        return rows
    # Row and unit hashes are each uniform; two multiplications mix their exclusive or, modulo 2^32 (as in murmur3's finalizer).
    bits = hashes[:, None] ^ _unit_hashes(layer, rows.shape[1], rows.device)
    bits.mul_(-2048144789).bitwise_xor_((bits >> 13) & 0x7FFFF).mul_(-1028477387)
    return rows * _mask(bits, rate, rows.dtype)


def drop_words(rows: Tensor, hashes: Tensor, rate: float) -> Tensor:
    """Embedding dropout: zeroes the vectors [R, D] of random ids, wherever they occur in the step, and scales the others (Gal and
    Ghahramani 2016). `hashes`: [R] int32, one for each row's id (`DropoutHashes.words`)."""
    return rows * _mask(hashes, rate, rows.dtype)[:, None] if rate else rows


def drop_weights(weight: Tensor, dropout_hashes: DropoutHashes, layer: int, rate: float) -> Tensor:
    """Zeroes random recurrent weights [G * H, H] of a layer for a whole step and scales the others: DropConnect (Wan et al. 2013) on the
    hidden-to-hidden matrices, the weight drop of AWD-LSTM."""
    return dropout(weight, dropout_hashes.weight_rows(layer, len(weight)).to(weight.device), layer, rate) if rate else weight


def activation(rows: Tensor) -> Tensor:
    """AR: the mean square of each row [R, D], summed over the rows. Takes the inputs of the softmax, dropout included."""
    return rows.square().mean(1).sum(dtype=torch.float64)


def temporal_activation(rows: Tensor, lengths: np.ndarray) -> Tensor:
    """TAR: the mean square of each row's difference to the row before it in its segment, summed over the rows.

    Takes the last layer's outputs [R, D] before dropout. `lengths`: rows of each segment; its first has no row before it.
    """
    has_previous = torch.ones(len(rows), dtype=torch.bool)
    has_previous[torch.from_numpy(np.cumsum(lengths) - lengths)] = False
    changes = (rows[1:] - rows[:-1]).square().mean(1)
    return torch.where(has_previous[1:].to(rows.device), changes, 0.0).sum(dtype=torch.float64)


def _mask(bits: Tensor, rate: float, dtype: torch.dtype) -> Tensor:
    """0 where uniform int32 are among the lowest `rate` of all values, else 1 / (1 - rate)."""
    return (bits >= int(rate * 2**32) - 2**31).to(dtype).mul_(1 / (1 - rate))

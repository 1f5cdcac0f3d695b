"""Matrix products: which types a device multiplies fast, and the products for the gradients of weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGNMENT = 16


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16; CPUs without them are up to a hundred times slower than in float32."""
    return torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported()


def pad_columns(matrix: Tensor) -> Tensor:
    """Adds zero columns on CPUs, up to a multiple of 16: with that many columns on the right `left.T @ right` is fastest.

    Measured with MKL on AVX2 for 10,000 x 700 x 650: 105 GFLOP/s as it is, 154 padded; for 1,150 columns 84 and 137.
    """
    missing = -matrix.shape[1] % _ALIGNMENT
    return F.pad(matrix, (0, missing)) if missing and matrix.device.type == "cpu" else matrix


def sum_of_outer_products(left: Tensor, right: Tensor) -> Tensor:
    """left [R, N] and right [R, M] -> left.T @ right, [N, M]: the sum over rows of their outer products."""
    return (left.T @ pad_columns(right))[:, : right.shape[1]]

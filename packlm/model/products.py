"""Products for the gradients of weights."""

import torch.nn.functional as F
from torch import Tensor

_UNIT = 16


def aligned(right: Tensor) -> Tensor:
    """The matrix with zero columns added, on CPUs, up to a multiple of 16: what a `left.T @ right` is fastest with.

    Measured with MKL on AVX2 for 10,000 x 700 x 650: 105 GFLOP/s as it is, 154 with the columns added; for 1,150: 84 and 137.
    """
    missing = -right.shape[1] % _UNIT
    return F.pad(right, (0, missing)) if missing and right.device.type == "cpu" else right


def summed_outer(left: Tensor, right: Tensor) -> Tensor:
    """left [R, N] and right [R, M] -> left.T @ right, [N, M]: the outer products of their rows, summed."""
    return (left.T @ aligned(right))[:, : right.shape[1]]

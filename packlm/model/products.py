"""Matrix products by the fastest exact library of the device, without automatic differentiation: kernels have their own backward passes.

A product of bfloat16 or float64, and every product on a GPU, has one way in torch. One of float32 on a CPU has two: MKL, torch's default,
and oneDNN. MKL knows Intel's processors best, and leaves AVX-512 of others unused; oneDNN is as exact
(`tests/model/test_products.py`; speeds: benchmarks/2026-11-28-speed.md).
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGNMENT = 16


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16; CPUs without them are up to a hundred times slower than in float32."""
    return torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported()


def type_under_autocast(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type of the products of weights of this type: bfloat16 under autocast to it, where the device has instructions for it."""
    bfloat16 = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.bfloat16
    return torch.bfloat16 if bfloat16 and has_bfloat16(device) else dtype


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN computes float32 products on this CPU: it has AVX-512 and is not Intel's."""
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "GenuineIntel" not in processor and "avx512f" in processor and torch.backends.mkldnn.is_available()


def float32_library(device: torch.device) -> str:
    """What computes products of float32 there, by name: for the record of a run, whose last bits depend on it."""
    return "oneDNN" if device.type == "cpu" and prefers_onednn() else "torch's default"


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """left [N, K] @ right [K, M] in the type of `left`, which is rounded to the type of `right` before."""
    if _by_onednn(left, right):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
        return product
    return (left.to(right.dtype) @ right).to(left.dtype)


def affine(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """rows [R, I] @ weight.T [I, O] + bias [O] in the type of the bias; rows are rounded to the type of the weight before."""
    if _by_onednn(rows, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product
    if weight.dtype == bias.dtype:
        return torch.addmm(bias, rows, weight.T)
    return (rows.to(weight.dtype) @ weight.T).to(bias.dtype).add_(bias)


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total [N, M] += left [N, K] @ right [K, M], where `left` is rounded to the type of `right` before."""
    if left.dtype != right.dtype or _by_onednn(left, right):
        total.add_(matmul(left, right))
    else:
        total.addmm_(left, right)


def sum_of_outer_products(left: Tensor, right: Tensor) -> Tensor:
    """left [R, N] and right [R, M] -> left.T @ right, [N, M]: the sum over rows of their outer products. In the type of `left`, which is
    rounded to the type of `right` before."""
    if _by_onednn(left, right):
        return matmul(right.T, left).T  # not the other way round: the larger one would be copied to be transposed
    return (left.to(right.dtype).T @ _pad_columns(right)).to(left.dtype)[:, : right.shape[1]]


class FixedWeight:
    """A weight matrix [O, I], and a bias [O], laid out once for many products of a few rows each, as in generation.

    oneDNN's own layout is the fastest on CPUs: 2 to 3 times MKL with 4 rows, 1.3 times with 64 (benchmarks/2026-11-29-speed.md).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight.T.contiguous()

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [R, I] -> rows @ weight.T + bias, [R, O]."""
        if self._packed:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
            return product
        return rows @ self._weight if self._bias is None else torch.addmm(self._bias, rows, self._weight)


def _by_onednn(left: Tensor, right: Tensor) -> bool:
    if left.dtype != torch.float32 or right.dtype != torch.float32 or left.device.type != "cpu" or 0 in left.shape:
        return False
    return prefers_onednn() and torch.get_float32_matmul_precision() == "highest"


def _pad_columns(matrix: Tensor) -> Tensor:
    """Adds zero columns to float32 on CPUs, up to a multiple of 16: with that many columns on the right MKL's `left.T @ right` is fastest.

    Measured with AVX2 for 10,000 x 700 x 650: 105 GFLOP/s as it is, 154 padded; for 1,150 columns 84 and 137.
    """
    missing = -matrix.shape[1] % _ALIGNMENT
    return F.pad(matrix, (0, missing)) if missing and matrix.dtype == torch.float32 and matrix.device.type == "cpu" else matrix

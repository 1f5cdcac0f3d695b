"""Muon: momentum whose update is orthogonalized (Jordan et al. 2024).

torch.optim.Muon computes in bfloat16 always, which is a hundred times slower on CPUs without instructions for it, and multiplies the whole
matrix in every iteration. Here only its Gram matrix is multiplied, in the weights' own precision, or in bfloat16 where a training in
bfloat16 runs on a processor that has such instructions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from packlm import config
from packlm.model.products import matmul

from .optimizers import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that brings every singular value to between about 0.7 and 1.2 in `ITERATIONS` steps."""
ITERATIONS = 5
_BFLOAT16_GROUPS = (3, 2)
"""Iterations on one Gram matrix in bfloat16. With all five on the first, its rounding errors make small eigenvalues negative, and these
grow: singular values up to 106 for a gradient of rank 1, where with two groups none is above 1.2, as in float32."""


def build(settings: config.Train, model: nn.Module, bfloat16: bool) -> list[Optimizer]:
    """Muon for the matrices of the recurrent layers, AdamW for embedding, softmax and biases, as its authors advise.

    The updates of both have the same root mean square (Liu et al. 2025, section 2.2), so one learning rate serves both.
    `bfloat16`: whether Muon's matrix products are computed in that type, else in the weights'.
    """
    ends = ("embedding.", "projection.")
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and not name.startswith(ends)]
    others = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    return [
        Muon(matrices, settings.lr, weight_decay=settings.weight_decay, bfloat16=bfloat16),
        adamw(others, settings.lr, settings.weight_decay),
    ]


class Muon(Optimizer):
    """Orthogonalized Nesterov momentum for matrices [M, N]; an update has the root mean square 0.2, like AdamW's (Liu et al. 2025, 2.2)."""

    def __init__(self, weights: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95, bfloat16: bool = False):
        """`bfloat16`: whether the iterations are computed in that type; momentum and weights keep theirs."""
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._bfloat16 = bfloat16

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(momentum, group["momentum"]), self._bfloat16)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: Tensor, bfloat16: bool = False) -> Tensor:
    """A matrix [M, N] with the same singular vectors and singular values near 1: Newton-Schulz iterations on the smaller Gram matrix.

    Computed in the matrix' type, or in bfloat16; the result has the matrix' type.
    """
    dtype, tall = matrix.dtype, matrix.shape[0] > matrix.shape[1]
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    if bfloat16:
        matrix = matrix.bfloat16()
    for iterations in _BFLOAT16_GROUPS if bfloat16 else (ITERATIONS,):
        factor = _polynomial(matmul(matrix.T, matrix) if tall else matmul(matrix, matrix.T), iterations)
        matrix = matmul(matrix, factor) if tall else matmul(factor, matrix)
    return matrix.to(dtype)


def _polynomial(gram: Tensor, iterations: int) -> Tensor:
    """The matrix that some iterations multiply the one whose Gram matrix this is with."""
    a, b, c = COEFFICIENTS
    total = None
    for iteration in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        total = factor if total is None else total @ factor
        if iteration < iterations - 1:
            gram = factor @ gram @ factor  # polynomials of the same matrix commute
    assert total is not None
    return total

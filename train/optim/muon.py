"""Muon: momentum whose step is made orthogonal (Jordan et al. 2024), in the weights' own arithmetic.

torch.optim.Muon rounds to bfloat16, which CPUs without instructions for it compute a hundred times slower, and works on the whole matrix
in each of its iterations. Here a matrix is multiplied only before and after them: they need no more than its Gram matrix.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that brings every singular value to between about 0.7 and 1.2 in `ITERATIONS` steps."""
ITERATIONS = 5


class Muon(Optimizer):
    """Nesterov momentum, made orthogonal, for matrices [M, N]; a step's root mean square is 0.2, as AdamW's (Liu et al. 2025, sec. 2.2)."""

    def __init__(self, weights: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                average = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(average, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [M, N] with its singular values brought near 1: Newton-Schulz iterations, on the smaller Gram matrix."""
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    gram = matrix.T @ matrix if tall else matrix @ matrix.T
    a, b, c = COEFFICIENTS
    total = None
    for iteration in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        total = factor if total is None else total @ factor
        if iteration < ITERATIONS - 1:
            gram = factor @ gram @ factor  # polynomials of one matrix commute
    assert total is not None
    return matrix @ total if tall else total @ matrix

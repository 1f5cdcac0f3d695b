"""Muon: momentum whose update is orthogonalized (Jordan et al. 2024), in the weights' own precision.

torch.optim.Muon computes in bfloat16, which is a hundred times slower on CPUs without instructions for it, and multiplies the whole matrix
in every iteration. Here only its Gram matrix is multiplied, and the matrix itself once, at the end.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from packlm import config

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that brings every singular value to between about 0.7 and 1.2 in `ITERATIONS` steps."""
ITERATIONS = 5


def build(settings: config.Train, model: nn.Module) -> list[Optimizer]:
    """Muon for the matrices of the recurrent layers, AdamW for embedding, softmax and biases, as its authors advise.

    The updates of both have the same root mean square (Liu et al. 2025, section 2.2), so one learning rate serves both.
    """
    matrices = [weight for name, weight in model.named_parameters() if name.startswith("recurrence.") and weight.ndim == 2]
    others = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    return [
        Muon(matrices, settings.lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(others, settings.lr, weight_decay=settings.weight_decay),
    ]


class Muon(Optimizer):
    """Orthogonalized Nesterov momentum for matrices [M, N]; an update has the root mean square 0.2, like AdamW's (Liu et al. 2025, 2.2)."""

    def __init__(self, weights: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

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
                update = orthogonal(weight.grad.lerp(momentum, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix [M, N] with the same singular vectors and singular values near 1: Newton-Schulz iterations on the smaller Gram matrix."""
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
            gram = factor @ gram @ factor  # polynomials of the same matrix commute
    assert total is not None
    return matrix @ total if tall else total @ matrix

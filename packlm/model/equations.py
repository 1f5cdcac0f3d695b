"""The equations of one time step, in plain operations: for whatever takes the steps one by one. `kernels` computes the same for
whole batches at once, in place and with a backward pass of its own.

The logistic function is an argument, since generation has one of its own. Shapes: n rows, I input width, H units.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

Gate = TypeVar("Gate")
Logistic = Callable[[Tensor], Tensor]


def gru(inputs: Tensor, shares: Tensor, h: Tensor, logistic: Logistic = torch.sigmoid) -> Tensor:
    """The state [n, H] after: W x + b and W' h + b' of r, z and n, [n, 3 * H] each, and the state before."""
    (r, z, new), (share_r, share_z, share) = inputs.chunk(3, dim=1), shares.chunk(3, dim=1)
    new = torch.tanh(new + logistic(r + share_r) * share)
    return new + logistic(z + share_z) * (h - new)


def lstm(inside: Tensor, c: Tensor, logistic: Logistic = torch.sigmoid) -> tuple[Tensor, Tensor]:
    """The state and cell, [n, H] each, after: what is inside the gates i, f, g and o, [n, 4 * H], and the cell before."""
    i, f, g, o = inside.chunk(4, dim=1)
    c = logistic(f) * c + logistic(i) * torch.tanh(g)
    return logistic(o) * torch.tanh(c), c


def mogrify(
    x: Tensor, h: Tensor, gates: Iterable[Gate], product: Callable[[Tensor, Gate], Tensor], logistic: Logistic = torch.sigmoid
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Inputs [n, I] and state [n, H] after they gated one another in turn; `product`: of rows with one of the `gates`."""
    for number, gate in enumerate(gates):
        if number % 2 == 0:
            x = 2 * logistic(product(h, gate)) * x
        else:
            h = 2 * logistic(product(x, gate)) * h
    return x, h

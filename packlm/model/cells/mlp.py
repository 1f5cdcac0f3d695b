"""The feed-forward language model of Bengio et al. (2003, section 2): each output sees the last four inputs and no others, as 5-grams do.

h = tanh(W [x_t, x_t-1, x_t-2, x_t-3] + b)

Before a segment's beginning the inputs are zeros. It has no recurrence: with it, a comparison shows what memory without an end is worth.
With several layers each one sees four outputs of the one below.
"""

import torch
from torch import Tensor, nn

from packlm.model.cell import Cell, LayerWeights, Products
from packlm.model.time_steps import TimeSteps

WINDOW = 4
"""Inputs that an output sees."""


class MlpLayer(nn.Module):
    """`weight_ih_l0` (W), units x WINDOW * input width, newest input first, and its bias."""

    def __init__(self, input_width: int, units: int):
        super().__init__()
        bound = (WINDOW * input_width) ** -0.5  # as torch initializes a linear layer
        self.weight_ih_l0 = nn.Parameter(torch.empty(units, WINDOW * input_width).uniform_(-bound, bound))
        self.bias_ih_l0 = nn.Parameter(torch.empty(units).uniform_(-bound, bound))


class Mlp(Cell):
    """`mlp`; its state are the inputs before, newest first."""

    recurrent_weights = ()

    def layer(self, input_width: int, units: int) -> nn.Module:
        return MlpLayer(input_width, units)

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        return WINDOW - 1, input_width

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return rows

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        window = torch.cat([projected[None], state])
        inputs = window.transpose(0, 1).flatten(1)
        return torch.tanh(products.affine(inputs, "weight_ih_l0", "bias_ih_l0")), window[:-1]

    def run(self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        steps, window = TimeSteps(batch_sizes, rows.device), [rows.to(start.dtype)]
        for before in start:
            window.append(steps.previous_rows(torch.cat([before, window[-1]])))
        outputs = torch.tanh(weights.affine(torch.cat(window, 1), "weight_ih_l0", "bias_ih_l0")).to(start.dtype)
        return outputs, torch.stack([steps.last(inputs) for inputs in window[:-1]])


CELLS = {"mlp": Mlp()}

"""The quasi-recurrent network (Bradbury et al. 2017, section 2.1) with windows of two inputs and fo-pooling, AWD-LSTM's second cell:

z = tanh(W [x, x_before] + b), f, o = sigmoid(the same), c' = f c + (1 - f) z, h' = o c'.

All products are of inputs, so they are computed for all time steps at once; what is recurrent is elementwise.
"""

import torch
from torch import Tensor, nn

from packlm.model.cell import Cell, LayerWeights, Products
from packlm.model.time_steps import TimeSteps


class QrnnLayer(nn.Module):
    """`weight_ih_l0` (W), 3 * units x 2 * input width, and its bias."""

    def __init__(self, input_width: int, units: int):
        super().__init__()
        bound = (2 * input_width) ** -0.5  # as torch initializes a convolution of width 2
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * units, 2 * input_width).uniform_(-bound, bound))
        self.bias_ih_l0 = nn.Parameter(torch.empty(3 * units).uniform_(-bound, bound))


class Qrnn(Cell):
    """`qrnn`; its state is c and the input before."""

    recurrent_weights = ("weight_ih_l0",)  # the one that AWD-LSTM's authors drop

    def layer(self, input_width: int, units: int) -> nn.Module:
        return QrnnLayer(input_width, units)

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        return 1, units + input_width

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return rows

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x, width = projected, projected.shape[1]
        c, before = state[0, :, :-width], state[0, :, -width:]
        z, f, o = products.affine(torch.cat([x, before], 1), "weight_ih_l0", "bias_ih_l0").chunk(3, dim=1)
        c = torch.lerp(torch.tanh(z), c, products.sigmoid(f))
        return products.sigmoid(o) * c, torch.cat([c, x], 1)[None]

    def run(self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        steps, width = TimeSteps(batch_sizes, rows.device), rows.shape[1]
        rows = rows.to(start.dtype)
        c, before = start[0, :, :-width], start[0, :, -width:]
        inputs = torch.cat([rows, steps.previous_rows(torch.cat([before, rows]))], 1)
        z, f, o = weights.affine(inputs, "weight_ih_l0", "bias_ih_l0").to(start.dtype).chunk(3, dim=1)
        cells = []
        for z_t, f_t in zip(steps.split(torch.tanh(z)), steps.split(torch.sigmoid(f)), strict=True):
            c = torch.lerp(z_t, c[: len(z_t)], f_t)
            cells.append(c)
        all_cells = torch.cat(cells)
        return torch.sigmoid(o) * all_cells, steps.last(torch.cat([all_cells, rows], 1))[None]


CELLS = {"qrnn": Qrnn()}

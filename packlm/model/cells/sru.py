"""The simple recurrent unit (Lei et al. 2018, equations 1 to 4):

f = sigmoid(W_f x + v_f c + b_f), c' = f c + (1 - f) W x, r = sigmoid(W_r x + v_r c + b_r), h' = r c' + (1 - r) x,

where the vectors v multiply elementwise, so that all matrix products are of inputs and computed for all time steps at once. Where input and
output differ in width, x in the last equation is multiplied by a matrix of its own.
"""

import torch
from torch import Tensor, nn

from packlm.model.cell import Cell, LayerWeights, Products
from packlm.model.time_steps import TimeSteps


class SruLayer(nn.Module):
    """`weight_ih_l0` (W, W_f, W_r and, where widths differ, that of the last equation), `weight_c_l0` (v_f, v_r), `bias_l0` (b_f, b_r)."""

    def __init__(self, input_width: int, units: int):
        super().__init__()
        bound = (3 / input_width) ** 0.5  # section 3.2
        matrices = 3 if input_width == units else 4
        self.weight_ih_l0 = nn.Parameter(torch.empty(matrices * units, input_width).uniform_(-bound, bound))
        self.weight_c_l0 = nn.Parameter(torch.empty(2 * units).uniform_(-bound, bound))
        self.bias_l0 = nn.Parameter(torch.zeros(2 * units))


class Sru(Cell):
    """`sru`; its state is c."""

    recurrent_weights = ()  # no matrix is multiplied with a state

    def layer(self, input_width: int, units: int) -> nn.Module:
        return SruLayer(input_width, units)

    def project(self, products: Products, rows: Tensor) -> Tensor:
        """[R, 4 * H]: W x, W_f x, W_r x, and x or its projection."""
        projected = products.affine(rows, "weight_ih_l0")
        units = products.vector("bias_l0").shape[0] // 2
        return torch.cat([projected, rows.to(projected.dtype)], 1) if projected.shape[1] == 3 * units else projected

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        (z, f_x, r_x, x), c = projected.chunk(4, dim=1), state[0]
        (v_f, v_r), (b_f, b_r) = products.vector("weight_c_l0").chunk(2), products.vector("bias_l0").chunk(2)
        f, r = products.sigmoid(f_x + v_f * c + b_f), products.sigmoid(r_x + v_r * c + b_r)
        c = torch.lerp(z, c, f)
        return torch.lerp(x, c, r), c[None]

    def run(self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        steps, c = TimeSteps(batch_sizes, rows.device), start[0]
        z, f_x, r_x, x = self.project(weights, rows).to(start.dtype).chunk(4, dim=1)
        (v_f, v_r), (b_f, b_r) = weights.vector("weight_c_l0").chunk(2), weights.vector("bias_l0").chunk(2)
        cells = []
        for z_t, f_t in zip(steps.split(z), steps.split(f_x + b_f), strict=True):
            c = c[: len(z_t)]
            c = torch.lerp(z_t, c, torch.sigmoid(f_t + v_f * c))
            cells.append(c)
        all_cells = torch.cat(cells)
        r = torch.sigmoid(r_x + v_r * steps.previous_rows(torch.cat([start[0], all_cells])) + b_r)
        return torch.lerp(x, all_cells, r), steps.last(all_cells)[None]


CELLS = {"sru": Sru()}

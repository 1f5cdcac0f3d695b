"""The Mogrifier LSTM (Melis, Kocisky and Blunsom 2020, section 2): before each time step, input and state gate one another in turn.

x^i = 2 sigmoid(Q^i h^(i-1)) x^(i-2)  for odd i,    h^i = 2 sigmoid(R^i x^(i-1)) h^(i-2)  for even i,    i = 1 .. rounds

An LSTM step follows on the last x and h. As the inputs depend on the state, nothing can be computed for all time steps together.
"""

import torch
from torch import Tensor, nn

from packlm.model.cell import Cell, Products
from packlm.model.cells.lstm import lstm

ROUNDS = 5


class MogrifierLayer(nn.LSTM):
    """An LSTM layer with the matrices of its rounds: `gates[i]` is Q (input width x units) and R (units x input width) in turn."""

    def __init__(self, input_width: int, units: int):
        super().__init__(input_width, units)
        shapes = [(input_width, units) if number % 2 == 0 else (units, input_width) for number in range(ROUNDS)]
        bound = units**-0.5  # as torch initializes an LSTM's own weights
        self.gates = nn.ParameterList(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes)


class Mogrifier(Cell):
    """`mogrifier`; its state is (h, c)."""

    def layer(self, input_width: int, units: int) -> nn.Module:
        return MogrifierLayer(input_width, units)

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        return 2, units

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return rows

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x, (h, c) = projected, state
        for number in range(ROUNDS):
            if number % 2 == 0:
                x = 2 * products.sigmoid(products.affine(h, f"gates.{number}")) * x
            else:
                h = 2 * products.sigmoid(products.affine(x, f"gates.{number}")) * h
        total = products.affine(x, "weight_ih_l0", "bias_ih_l0") + products.affine(h, "weight_hh_l0", "bias_hh_l0")
        return lstm(products, total, c)


CELLS = {"mogrifier": Mogrifier()}

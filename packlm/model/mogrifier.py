"""The Mogrifier LSTM (Melis, Kocisky and Blunsom 2020, section 2): before each time step, input and state gate one another in turn.

    x^i = 2 sigmoid(Q^i h^(i-1)) x^(i-2)  for odd i,    h^i = 2 sigmoid(R^i x^(i-1)) h^(i-2)  for even i,    i = 1 .. rounds

and an LSTM step follows on the last x and h. As the inputs wait for the state, nothing can be computed for all time steps together; the
gradient is autograd's.
"""

from typing import Any

import torch
from torch import Tensor, nn

from packlm.model.equations import lstm, mogrify
from packlm.model.kernels import Steps, Weights


class Mogrifier(nn.LSTM):
    """An LSTM layer with the matrices of its rounds: `gates[i]` is Q (input width x units) and R (units x input width) in turn."""

    def __init__(self, input_width: int, units: int, rounds: int = 5, **options: Any):
        super().__init__(input_width, units, **options)
        shapes = [(input_width, units) if number % 2 == 0 else (units, input_width) for number in range(rounds)]
        bound = units**-0.5  # as torch draws an LSTM's own weights
        self.gates = nn.ParameterList(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes)


def run(layer: Mogrifier, weights: Weights, rows: Tensor, start: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over packed rows; arguments and results as of `steps.run`."""
    w_ih, w_hh, b_ih, b_hh = weights
    steps = Steps(sizes, rows.device)
    bias = b_ih + b_hh
    h, c = start
    outputs, cells = [], []
    for x in steps.of(rows):
        h, c = h[: len(x)], c[: len(x)]
        x, h = mogrify(x, h, layer.gates, lambda rows, gate: rows @ gate.T)
        h, c = lstm(torch.addmm(bias, x, w_ih.T) + h @ w_hh.T, c)
        outputs.append(h)
        cells.append(c)
    hidden = torch.cat(outputs)
    return hidden, torch.stack([steps.last_of(hidden), steps.last_of(torch.cat(cells))])

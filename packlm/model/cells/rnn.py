"""Elman's recurrent network (Elman 1990), with tanh or ReLU: h' = f(W x + b + U h + b')."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from packlm.model.cell import Cell, LayerWeights, Products, with_product_type
from packlm.model.products import add_product_, affine, matmul, sum_of_outer_products
from packlm.model.time_steps import TimeSteps


class Rnn(Cell):
    """`rnn` (tanh) and `rnn_relu`."""

    def __init__(self, relu: bool):
        self.relu = relu
        self.torch_kernel = torch._VF.rnn_relu if relu else torch._VF.rnn_tanh

    def layer(self, input_width: int, units: int) -> nn.Module:
        return nn.RNN(input_width, units, nonlinearity="relu" if self.relu else "tanh")

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return products.affine(rows, "weight_ih_l0", "bias_ih_l0")

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        total = projected + products.affine(state[0], "weight_hh_l0", "bias_hh_l0")
        h = torch.relu(total) if self.relu else torch.tanh(total)
        return h, h[None]

    @with_product_type
    def run(
        self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor, product_type: torch.dtype
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps = TimeSteps(batch_sizes, rows.device)
        hidden = _Kernel.apply(rows, start[0], *weights.tensors.values(), steps, self.relu, product_type)
        return hidden, steps.last(hidden)[None]


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: TimeSteps, relu: bool,
        product_type: torch.dtype,
    ) -> Tensor:  # fmt: skip
        rows, w_ih, w_hh = (factor.to(product_type) for factor in (rows, w_ih, w_hh))
        inputs, states, w_hh_t = affine(rows, w_ih, b_ih + b_hh), steps.allocate(start), w_hh.T.contiguous()
        hidden = states[len(start) :]
        for total, before, after in zip(steps.split(inputs), steps.previous(states), steps.split(hidden), strict=True):
            add_product_(total, before, w_hh_t)
            torch.clamp(total, min=0, out=after) if relu else torch.tanh(total, out=after)
        ctx.steps, ctx.relu = steps, relu
        ctx.save_for_backward(rows, states, w_ih, w_hh)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, states, w_ih, w_hh = ctx.saved_tensors
        steps: TimeSteps = ctx.steps
        hidden = states[len(states) - len(rows) :]
        slopes = (hidden > 0).to(hidden.dtype) if ctx.relu else 1 - hidden * hidden
        totals = gradient.clone()  # becomes the gradient of what is inside f
        start = totals.new_zeros(len(states) - len(rows), totals.shape[1])
        parts = zip(steps.previous_reversed(totals, start), steps.split_reversed(totals), steps.split_reversed(slopes), strict=True)
        for before, total, slope in parts:
            add_product_(before, total.mul_(slope), w_hh)
        bias, d_w_hh = totals.sum(0), sum_of_outer_products(totals, steps.previous_rows(states).to(rows.dtype))
        return matmul(totals, w_ih), start, sum_of_outer_products(totals, rows), d_w_hh, bias, bias, None, None, None


CELLS = {"rnn": Rnn(relu=False), "rnn_relu": Rnn(relu=True)}

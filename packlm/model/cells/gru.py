"""Gated recurrent unit (Cho et al. 2014), in the form that cuDNN and torch compute:

r, z = sigmoid(W x + b + U h + b'), n = tanh(W x + b + r (U h + b')), h' = n + z (h - n).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from packlm.model.cell import Cell, LayerWeights, Products, with_product_type
from packlm.model.products import add_product_, affine, matmul, sum_of_outer_products
from packlm.model.time_steps import TimeSteps


class Gru(Cell):
    """`gru`."""

    torch_kernel = torch._VF.gru

    def layer(self, input_width: int, units: int) -> nn.Module:
        return nn.GRU(input_width, units)

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return products.affine(rows, "weight_ih_l0", "bias_ih_l0")

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = state[0]
        recurrent = products.affine(h, "weight_hh_l0", "bias_hh_l0")
        (r_x, z_x, n_x), (r_h, z_h, n_h) = projected.chunk(3, dim=1), recurrent.chunk(3, dim=1)
        n = torch.tanh(n_x + products.sigmoid(r_x + r_h) * n_h)
        h = n + products.sigmoid(z_x + z_h) * (h - n)
        return h, h[None]

    @with_product_type
    def run(
        self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor, product_type: torch.dtype
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps = TimeSteps(batch_sizes, rows.device)
        hidden = _Kernel.apply(rows, start[0], *weights.tensors.values(), steps, product_type)
        return hidden, steps.last(hidden)[None]


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: TimeSteps,
        product_type: torch.dtype,
    ) -> Tensor:  # fmt: skip
        units = start.shape[1]
        rows, w_ih, w_hh = (factor.to(product_type) for factor in (rows, w_ih, w_hh))
        gates, states, w_hh_t = affine(rows, w_ih, b_ih), steps.allocate(start), w_hh.T.contiguous()
        hidden, recurrent = states[len(start) :], b_hh.repeat(len(rows), 1)  # recurrent: U h + b'
        rz, n_h = gates[:, : 2 * units], recurrent[:, 2 * units :]
        parts = zip(
            steps.split(recurrent), steps.split(recurrent[:, : 2 * units]), steps.split(n_h), steps.split(rz), steps.split(rz[:, :units]),
            steps.split(rz[:, units:]), steps.split(gates[:, 2 * units :]), steps.previous(states), steps.split(hidden), strict=True,
        )  # fmt: skip
        for recurrent_t, rz_h_t, n_h_t, rz_t, r, z, n, before, after in parts:
            add_product_(recurrent_t, before, w_hh_t)
            rz_t.add_(rz_h_t).sigmoid_()
            n.addcmul_(r, n_h_t).tanh_()
            torch.sub(before, n, out=after).mul_(z).add_(n)
        ctx.steps = steps
        ctx.save_for_backward(rows, states, gates, n_h, w_ih, w_hh)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, states, gates, n_h, w_ih, w_hh = ctx.saved_tensors
        steps: TimeSteps = ctx.steps
        r, z, n = gates.chunk(3, dim=1)
        before = steps.previous_rows(states)
        dn = (1 - z) * (1 - n * n)  # of what is inside n's tanh, by h'
        # Derivatives of h' by the three parts of U h + b', all rows at once; the loop multiplies them by the gradient of h'.
        factors = torch.stack([dn * n_h * r * (1 - r), (before - n) * z * (1 - z), dn * r], 1)
        totals = gradient.clone()
        start = totals.new_zeros(len(states) - len(rows), totals.shape[1])
        recurrent = factors.flatten(1)
        parts = zip(
            steps.previous_reversed(totals, start), steps.split_reversed(totals), steps.split_reversed(factors),
            steps.split_reversed(recurrent), steps.split_reversed(z), strict=True,
        )  # fmt: skip
        for before_t, total, factor, recurrent_t, z_t in parts:
            factor.mul_(total[:, None])
            add_product_(before_t, recurrent_t, w_hh)
            before_t.addcmul_(total, z_t)
        d_w_hh, d_b_hh = sum_of_outer_products(recurrent, before.to(rows.dtype)), recurrent.sum(0)
        # W x + b has the same gradients as U h + b', except for n, where only U h + b' is multiplied by r.
        inputs = torch.cat([recurrent[:, : 2 * z.shape[1]], totals * dn], 1)
        return matmul(inputs, w_ih), start, sum_of_outer_products(inputs, rows), d_w_hh, inputs.sum(0), d_b_hh, None, None


CELLS = {"gru": Gru()}

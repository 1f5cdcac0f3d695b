"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000):

i, f, o = sigmoid(W x + b + U h + b'), g = tanh(the same), c' = f c + i g, h' = o tanh(c').
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from packlm.model.cell import Cell, LayerWeights, Products, with_product_type
from packlm.model.products import add_product_, affine, matmul, sum_of_outer_products
from packlm.model.time_steps import TimeSteps


class Lstm(Cell):
    """`lstm`; its state is (h, c)."""

    torch_kernel = torch._VF.lstm
    has_onednn_kernel = True

    def layer(self, input_width: int, units: int) -> nn.Module:
        return nn.LSTM(input_width, units)

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        return 2, units

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return products.affine(rows, "weight_ih_l0", "bias_ih_l0")

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        return lstm(products, projected + products.affine(h, "weight_hh_l0", "bias_hh_l0"), c)

    @with_product_type
    def run(
        self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor, product_type: torch.dtype
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps = TimeSteps(batch_sizes, rows.device)
        hidden, cells = _Kernel.apply(rows, start[0], start[1], *weights.tensors.values(), steps, product_type)
        return hidden, torch.stack([steps.last(hidden), steps.last(cells)])


def lstm(products: Products, total: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Output [n, H] and state (h, c) [2, n, H] after a step: from what is inside the gates i, f, g and o [n, 4 * H], and c before."""
    i, f, g, o = total.chunk(4, dim=1)
    c = products.sigmoid(f) * c + products.sigmoid(i) * torch.tanh(g)
    h = products.sigmoid(o) * torch.tanh(c)
    return h, torch.stack([h, c])


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, start_c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: TimeSteps,
        product_type: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        units, segments = start.shape[1], len(start)
        rows, w_ih, w_hh = (factor.to(product_type) for factor in (rows, w_ih, w_hh))
        gates, w_hh_t = affine(rows, w_ih, b_ih + b_hh), w_hh.T.contiguous()
        states, cells, tanh_c = steps.allocate(start), steps.allocate(start_c), start.new_empty(len(rows), units)
        i, f, g, o = gates.chunk(4, dim=1)
        parts = zip(
            steps.split(gates), steps.split(gates[:, : 2 * units]), steps.split(i), steps.split(f), steps.split(g), steps.split(o),
            steps.previous(states), steps.previous(cells), steps.split(states[segments:]), steps.split(cells[segments:]),
            steps.split(tanh_c), strict=True,
        )  # fmt: skip
        for total, i_f, i_t, f_t, g_t, o_t, before, c_before, after, c_after, tanh_c_t in parts:
            add_product_(total, before, w_hh_t)
            i_f.sigmoid_()
            g_t.tanh_()
            o_t.sigmoid_()
            torch.mul(f_t, c_before, out=c_after).addcmul_(i_t, g_t)
            torch.tanh(c_after, out=tanh_c_t)
            torch.mul(o_t, tanh_c_t, out=after)
        ctx.steps = steps
        ctx.save_for_backward(rows, states, cells, tanh_c, gates, w_ih, w_hh)
        ctx.set_materialize_grads(False)
        return states[segments:], cells[segments:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, c_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, states, cells, tanh_c, gates, w_ih, w_hh = ctx.saved_tensors
        steps: TimeSteps = ctx.steps
        count, units, segments = len(rows), tanh_c.shape[1], len(states) - len(rows)
        i, f, g, o = gates.chunk(4, dim=1)
        # Derivatives of c' by what is inside i, f and g, and of h' by what is inside o, all rows at once; the loop multiplies them by the
        # gradients of c' and h'.
        gates_ = gates.view(count, 4, units)
        factors = torch.addcmul(gates_, gates_, gates_, value=-1)
        factors[:, 0].mul_(g)
        factors[:, 1].mul_(steps.previous_rows(cells))
        torch.addcmul(i, i, g * g, value=-1, out=factors[:, 2])
        factors[:, 3].mul_(tanh_c)
        dc = torch.addcmul(o, o, tanh_c * tanh_c, value=-1)  # of h', by c'
        totals = tanh_c.new_zeros(count, units) if gradient is None else gradient.clone()
        start, start_c = totals.new_zeros(segments, units), totals.new_zeros(segments, units)
        c_gradients = [None] * len(steps.batch_sizes) if c_gradient is None else steps.split_reversed(c_gradient)
        parts = zip(
            steps.previous_reversed(totals, start), steps.split_reversed(totals), steps.split_reversed(factors.flatten(1)),
            steps.split_reversed(factors[:, :3]), steps.split_reversed(factors[:, 3]), steps.split_reversed(dc), steps.split_reversed(f),
            c_gradients, strict=True,
        )  # fmt: skip
        for before, total, factors_t, ifg, o_t, dc_t, f_t, c_gradient_t in parts:
            c = start_c[: len(total)].addcmul_(total, dc_t)  # the gradient of c, carried back from step to step
            if c_gradient_t is not None:
                c.add_(c_gradient_t)
            ifg.mul_(c[:, None])
            o_t.mul_(total)
            c.mul_(f_t)
            add_product_(before, factors_t, w_hh)
        inside = factors.flatten(1)
        bias, d_w_hh = inside.sum(0), sum_of_outer_products(inside, steps.previous_rows(states).to(rows.dtype))
        return matmul(inside, w_ih), start, start_c, sum_of_outer_products(inside, rows), d_w_hh, bias, bias, None, None


CELLS = {"lstm": Lstm()}

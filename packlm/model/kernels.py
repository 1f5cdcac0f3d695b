"""Our own recurrence over packed rows: every segment at once, time step by time step, with a backward pass of its own.

The lecture's idea 5, building a batch from the tensors of each time step, for which 'God-like engineering skills are needed'. What it
takes: rows lie time step by time step, longest segment first (`recurrence.Arrangement`), so step t is a run of rows whose predecessors
are the first rows of step t - 1. All that does not wait for the state is one product over all rows: the inputs' share of the gates
before the loop, every gradient of a weight after it. Within the loop remain one product with the recurrent weights and a handful of
elementwise operations; what the backward pass multiplies with is made for all rows before its loop begins.

Shapes: R rows over T steps, n_t of them in step t, B = n_0 segments, I input width, H units, G gates.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from packlm.model.products import summed_outer

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""weight_ih [G * H, I], weight_hh [G * H, H], bias_ih [G * H], bias_hh [G * H], as torch's layers hold them."""


def run(cell: str, rows: Tensor, start: Tensor, weights: Weights, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over packed rows.

    Args:
        cell: rnn (tanh), rnn_relu, gru or lstm.
        rows: [R, I]; start: [C, B, H], C = 2 (h and c) for lstm, else 1; sizes: [T] n_t, never rising, on the CPU.

    Returns:
        (rows [R, H], final state of each segment [C, B, H]), with gradients to all arguments. Under autocast it runs in the weights' type.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, start = rows.to(weights[0].dtype), start.to(weights[0].dtype)
        steps = Steps(sizes, rows.device)
        if cell == "lstm":
            hidden, cells = _Lstm.apply(rows, start[0], start[1], *weights, steps)
            return hidden, torch.stack([steps.last_of(hidden), steps.last_of(cells)])
        if cell == "gru":
            hidden = _Gru.apply(rows, start[0], *weights, steps)
        else:
            hidden = _Rnn.apply(rows, start[0], *weights, steps, cell == "rnn_relu")
        return hidden, steps.last_of(hidden)[None]


class Steps:
    """Which rows are which time step."""

    def __init__(self, sizes: Tensor, device: torch.device):
        """`sizes`: [T] rows of each time step, never rising, on the CPU."""
        self._sizes, self.device = sizes, device
        self.sizes: list[int] = sizes.tolist()
        self.same = self.sizes[0] == self.sizes[-1]

    def of(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows [R, ...] of each step, as views."""
        return rows.split(self.sizes)

    def before(self, states: Tensor) -> list[Tensor]:
        """What each step starts from, as views of states [B + R, H]: the start, then each row's."""
        begins = [0, self.sizes[0], *(self._sizes.cumsum(0)[:-1] + self.sizes[0]).tolist()]
        return [states[begin : begin + size] for begin, size in zip(begins, self.sizes, strict=False)]

    def all_before(self, states: Tensor) -> Tensor:
        """What `before` gives, of all rows as one tensor [R, H]."""
        count = len(states) - self.sizes[0]
        if self.same:
            return states[:count]
        earlier = torch.cat([self._sizes[:1], self._sizes[:-1]])  # rows of the step before, which lie between
        back = torch.repeat_interleave(earlier, self._sizes)
        return states.index_select(0, (torch.arange(self.sizes[0], self.sizes[0] + count) - back).to(self.device))

    def backwards(self, rows: Tensor, start: Tensor) -> list[Tensor]:
        """For each step, the last one first: those of the rows [R, H] before it, or of the start [B, H], that it goes on from."""
        back = [start, *self.of(rows)[:-1]]
        return [before[:size] for before, size in zip(back, self.sizes, strict=True)][::-1]

    def last_of(self, rows: Tensor) -> Tensor:
        """The last row of each segment, [B, H]."""
        if self.same:
            return rows[len(rows) - self.sizes[0] :]
        lengths = len(self.sizes) - torch.searchsorted(self._sizes.flip(0), torch.arange(self.sizes[0]), right=True)
        begins = self._sizes.cumsum(0) - self._sizes
        return rows.index_select(0, (begins[lengths - 1] + torch.arange(self.sizes[0])).to(self.device))


def _room(start: Tensor, count: int) -> Tensor:
    """[B + count, H]: the start, and room for the states of `count` rows."""
    states = start.new_empty(len(start) + count, start.shape[1])
    states[: len(start)] = start
    return states


class _Rnn(torch.autograd.Function):
    """h' = f(W_ih x + b_ih + W_hh h + b_hh), f = tanh or ReLU (Elman 1990)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: Steps, relu: bool
    ) -> Tensor:  # fmt: skip
        inputs, states, recurrent = torch.addmm(b_ih + b_hh, rows, w_ih.T), _room(start, len(rows)), w_hh.T.contiguous()
        for total, before, after in zip(steps.of(inputs), steps.before(states), steps.of(states[len(start) :]), strict=True):
            total.addmm_(before, recurrent)
            torch.clamp(total, min=0, out=after) if relu else torch.tanh(total, out=after)
        ctx.steps, ctx.relu = steps, relu
        ctx.save_for_backward(rows, states, w_ih, w_hh)
        return states[len(start) :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, states, w_ih, w_hh = ctx.saved_tensors
        steps: Steps = ctx.steps
        hidden = states[len(states) - len(rows) :]
        slope = (hidden > 0).to(hidden.dtype) if ctx.relu else 1 - hidden * hidden
        inside = gradient.clone()  # becomes the gradient of what is inside f
        start = inside.new_zeros(len(states) - len(rows), inside.shape[1])
        for back, total, factor in zip(steps.backwards(inside, start), reversed(steps.of(inside)), reversed(steps.of(slope)), strict=True):
            back.addmm_(total.mul_(factor), w_hh)
        bias = inside.sum(0)
        inputs, recurrent = summed_outer(inside, rows), summed_outer(inside, steps.all_before(states))
        return inside @ w_ih, start, inputs, recurrent, bias, bias, None, None


class _Gru(torch.autograd.Function):
    """Gated recurrent unit (Cho et al. 2014), in the form that cuDNN and torch compute:

    r, z = sigmoid(W x + b + W' h + b'), n = tanh(W x + b + r (W' h + b')), h' = n + z (h - n).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, start: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: Steps) -> Tensor:
        count, units = len(rows), start.shape[1]
        gates, states, recurrent = torch.addmm(b_ih, rows, w_ih.T), _room(start, count), w_hh.T.contiguous()
        shares = rows.new_empty(count, 3 * units)  # W' h + b'
        doors, news, new_shares = gates[:, : 2 * units], gates[:, 2 * units :], shares[:, 2 * units :]
        parts = zip(
            steps.of(shares), steps.of(shares[:, : 2 * units]), steps.of(new_shares), steps.of(doors), steps.of(doors[:, :units]),
            steps.of(doors[:, units:]), steps.of(news), steps.before(states), steps.of(states[len(start) :]), strict=True,
        )  # fmt: skip
        for share, door_share, new_share, door, r, z, new, before, after in parts:
            torch.addmm(b_hh, before, recurrent, out=share)
            door.add_(door_share).sigmoid_()
            new.addcmul_(r, new_share).tanh_()
            torch.sub(before, new, out=after).mul_(z).add_(new)
        ctx.steps = steps
        ctx.save_for_backward(rows, states, gates, new_shares, w_ih, w_hh)
        return states[len(start) :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, states, gates, new_shares, w_ih, w_hh = ctx.saved_tensors
        steps: Steps = ctx.steps
        r, z, n = gates.chunk(3, dim=1)
        before = steps.all_before(states)
        to_new = (1 - z) * (1 - n * n)
        # What the gradient of h' is multiplied with to give those of the three shares W' h + b'.
        factors = torch.stack([to_new * new_shares * r * (1 - r), (before - n) * z * (1 - z), to_new * r], 1)
        totals = gradient.clone()
        start = totals.new_zeros(len(states) - len(rows), totals.shape[1])
        parts = zip(
            steps.backwards(totals, start), reversed(steps.of(totals)), reversed(steps.of(factors)), reversed(steps.of(factors.flatten(1))),
            reversed(steps.of(z)), strict=True,
        )  # fmt: skip
        for back, total, factor, share, keep in parts:
            factor.mul_(total[:, None])
            back.addmm_(share, w_hh).addcmul_(total, keep)
        shares = factors.flatten(1)
        recurrent, recurrent_bias = summed_outer(shares, before), shares.sum(0)
        # The inputs' shares have the same gradients, but for the new value, whose recurrent share alone passes through r.
        inputs = torch.cat([shares[:, : 2 * z.shape[1]], totals * to_new], 1)
        return inputs @ w_ih, start, summed_outer(inputs, rows), recurrent, inputs.sum(0), recurrent_bias, None


class _Lstm(torch.autograd.Function):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000):

    i, f, o = sigmoid(W x + b + W' h + b'), g = tanh(the same), c' = f c + i g, h' = o tanh(c').
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, start_cell: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, steps: Steps
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        count, units, segments = len(rows), start.shape[1], len(start)
        gates, recurrent = torch.addmm(b_ih + b_hh, rows, w_ih.T), w_hh.T.contiguous()
        states, cells, squashed = _room(start, count), _room(start_cell, count), rows.new_empty(count, units)
        i, f, g, o = gates.chunk(4, dim=1)
        parts = zip(
            steps.of(gates), steps.of(gates[:, : 2 * units]), steps.of(i), steps.of(f), steps.of(g), steps.of(o), steps.before(states),
            steps.before(cells), steps.of(states[segments:]), steps.of(cells[segments:]), steps.of(squashed), strict=True,
        )  # fmt: skip
        for total, doors, door_in, keep, new, door_out, before, cell_before, after, cell_after, squash in parts:
            total.addmm_(before, recurrent)
            doors.sigmoid_()
            new.tanh_()
            door_out.sigmoid_()
            torch.mul(keep, cell_before, out=cell_after).addcmul_(door_in, new)
            torch.tanh(cell_after, out=squash)
            torch.mul(door_out, squash, out=after)
        ctx.steps = steps
        ctx.save_for_backward(rows, states, cells, squashed, gates, w_ih, w_hh)
        ctx.set_materialize_grads(False)
        return states[segments:], cells[segments:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, cell_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, states, cells, squashed, gates, w_ih, w_hh = ctx.saved_tensors
        steps: Steps = ctx.steps
        count, units, segments = len(rows), squashed.shape[1], len(states) - len(rows)
        i, f, g, o = gates.chunk(4, dim=1)
        before = steps.all_before(states)
        # What the gradients of c' (for i, f, g) and of h' (for o) are multiplied with to give those inside the gates.
        slopes = gates.view(count, 4, units)
        factors = torch.addcmul(slopes, slopes, slopes, value=-1)
        factors[:, 0].mul_(g)
        factors[:, 1].mul_(steps.all_before(cells))
        torch.addcmul(i, i, g * g, value=-1, out=factors[:, 2])
        factors[:, 3].mul_(squashed)
        to_cell = torch.addcmul(o, o, squashed * squashed, value=-1)
        totals = squashed.new_zeros(count, units) if gradient is None else gradient.clone()
        cell = squashed.new_zeros(segments, units)  # the gradient of each segment's cell
        given = steps.of(cell_gradient) if cell_gradient is not None else [None] * len(steps.sizes)
        start = totals.new_zeros(segments, units)
        parts = zip(
            steps.backwards(totals, start), reversed(steps.of(totals)), reversed(steps.of(factors.flatten(1))),
            reversed(steps.of(factors[:, :3])), reversed(steps.of(factors[:, 3])), reversed(steps.of(to_cell)), reversed(steps.of(f)),
            reversed(given), strict=True,
        )  # fmt: skip
        for back, total, all_factors, cell_factors, out_factor, through, keep, more in parts:
            own = cell[: len(total)].addcmul_(total, through)
            if more is not None:
                own.add_(more)
            cell_factors.mul_(own[:, None])
            out_factor.mul_(total)
            own.mul_(keep)
            back.addmm_(all_factors, w_hh)
        inside, bias = factors.flatten(1), factors.flatten(1).sum(0)
        return inside @ w_ih, start, cell, summed_outer(inside, rows), summed_outer(inside, before), bias, bias, None

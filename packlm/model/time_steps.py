"""Packed rows, time step by time step: the layout of torch's PackedSequence, which all kernels over rows share.

Rows lie time step by time step, longest segment first (`recurrence.Packing`), so step t is a run of rows whose predecessors are the
first rows of step t - 1.

Shapes: R rows over T steps, n_t of them in step t, B = n_0 segments, H units.
"""

import torch
from torch import Tensor


class TimeSteps:
    """Which rows belong to which time step."""

    def __init__(self, batch_sizes: Tensor, device: torch.device):
        """`batch_sizes`: [T] rows of each time step (n_t), never rising, on the CPU."""
        self._sizes, self._device = batch_sizes, device
        self.batch_sizes: list[int] = batch_sizes.tolist()
        self._equal_lengths = self.batch_sizes[0] == self.batch_sizes[-1]

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows [R, ...] of each step, as views."""
        return rows.split(self.batch_sizes)

    def split_reversed(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows [R, ...] of each step, as views, last step first."""
        return rows.split(self.batch_sizes)[::-1]

    def allocate(self, start: Tensor) -> Tensor:
        """[B + R, H]: the initial states, followed by uninitialized memory for the state after each row."""
        states = start.new_empty(len(start) + sum(self.batch_sizes), start.shape[1])
        states[: len(start)] = start
        return states

    def previous(self, states: Tensor) -> list[Tensor]:
        """The state before each step, as views of states [B + R, H]."""
        begins = [0, self.batch_sizes[0], *(self._sizes.cumsum(0)[:-1] + self.batch_sizes[0]).tolist()]
        return [states[begin : begin + size] for begin, size in zip(begins, self.batch_sizes, strict=False)]

    def previous_rows(self, states: Tensor) -> Tensor:
        """The state before each row, [R, H], of states [B + R, H]."""
        count = len(states) - self.batch_sizes[0]
        if self._equal_lengths:
            return states[:count]
        previous_sizes = torch.cat([self._sizes[:1], self._sizes[:-1]])
        offsets = torch.repeat_interleave(previous_sizes, self._sizes)  # from a row's state back to the one before it
        indices = torch.arange(self.batch_sizes[0], self.batch_sizes[0] + count) - offsets
        return states.index_select(0, indices.to(self._device))

    def previous_reversed(self, rows: Tensor, start: Tensor) -> list[Tensor]:
        """For each step, last step first: the rows [R, H] that precede its own, or those of `start` [B, H], as views."""
        sources = [start, *self.split(rows)[:-1]]
        return [source[:size] for source, size in zip(sources, self.batch_sizes, strict=True)][::-1]

    def last(self, rows: Tensor) -> Tensor:
        """The last row of each segment, [..., B, H], of rows [..., R, H]."""
        if self._equal_lengths:
            return rows[..., rows.shape[-2] - self.batch_sizes[0] :, :]
        segments = torch.arange(self.batch_sizes[0])
        lengths = len(self.batch_sizes) - torch.searchsorted(self._sizes.flip(0), segments, right=True)
        begins = self._sizes.cumsum(0) - self._sizes
        return rows.index_select(-2, (begins[lengths - 1] + segments).to(self._device))

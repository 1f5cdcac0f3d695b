"""How a batch of segments runs through a stack of recurrent layers.

Shapes: B segments, P tokens (all segments end to end, 'segment order'), R packed rows, I input width, H units, C x S the state of a
segment. A segment starts from a state of its own and nothing flows between segments.

In every layout the tokens lie time step by time step, longest segment first, as in torch's PackedSequence:

    steps       exactly the tokens, through the cell's own kernel (`Cell.run`)
    packed      exactly the tokens, through torch's kernels over a PackedSequence
    rectangle   torch's dense kernels over blocks of steps in which the number of segments stays the same. With states to return, a block
                ends where a segment ends; without, shorter segments are padded on their right up to one block, which is exact because a
                causal model cannot see what follows.
    auto        for each batch the fastest of them (`fastest`)

A cell without a kernel in torch runs through its own in every layout, padded in the rectangle.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from packlm import config
from packlm.model import torch_kernels
from packlm.model.cell import LayerWeights
from packlm.model.cells import CELLS
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.products import type_under_autocast
from packlm.model.regularization import drop_weights, drop_words, dropout

Layout = Literal["auto", "steps", "packed", "rectangle"]
State = tuple[Tensor, ...]
"""For each layer [C, B, S]: the state of B segments."""

DENSE_ENOUGH = 0.8
"""On CPUs, the share of a rectangle that has to be tokens for oneDNN's LSTM, which needs one, to be faster than ours, which does not:
0.66 to 0.84 of our time for the same rows (benchmarks/2026-11-24-recurrence.md)."""
WIDE, FEW_SEGMENTS = 576, 48
"""On CPUs, ours is the faster LSTM in bfloat16 above so many units, for fewer segments than that: whole steps of 650 units and 20 segments
took 0.84 of its time in oneDNN's, of 200 to 512 units 1.10 to 1.31, of 650 units and 64 segments 1.06 (benchmarks/2026-11-29-speed.md)."""


def fastest(cell: str, units: int, lengths: np.ndarray, return_state: bool, device: torch.device, dtype: torch.dtype) -> Layout:
    """The fastest layout for layers of so many units and segments of these lengths; all give the same results to rounding.

    GPUs: cuDNN's packed kernels. CPUs: ours, except where oneDNN has one (an LSTM in float32 or bfloat16 over dense blocks). `dtype` is
    that of the matrix products.
    """
    if CELLS[cell].torch_kernel is None:
        return "steps"
    if device.type != "cpu":
        return "packed"
    if not CELLS[cell].has_onednn_kernel or dtype not in (torch.float32, torch.bfloat16):
        return "steps"
    if dtype == torch.bfloat16 and units > WIDE and len(lengths) < FEW_SEGMENTS:
        return "steps"
    if return_state:
        return "rectangle" if lengths.min() == lengths.max() else "steps"
    return "rectangle" if lengths.sum() >= DENSE_ENOUGH * lengths.max() * len(lengths) else "steps"


def layout_name(layout: Layout, cell: str, units: int, device: torch.device, dtype: torch.dtype) -> str:
    """A layout for the log, with what `auto` chooses here."""
    if layout != "auto":
        return layout
    shapes = ([2] * 2, [2] * FEW_SEGMENTS, [9, 1])
    chosen = sorted({fastest(cell, units, np.array(lengths), False, device, dtype) for lengths in shapes})
    return f"auto ({' or '.join(chosen)})"


@dataclass(frozen=True)
class Packing:
    """Which token is in which packed row."""

    sorted_indices: Tensor
    """[B] segments, longest first."""
    tokens: Tensor
    """[R] the token (in segment order) of each row; a padding row has its segment's last token."""
    rows: Tensor
    """[P] the row of each token."""
    batch_sizes: Tensor
    """[T] segments running at each time step, never rising; on the CPU."""

    @staticmethod
    def of(lengths: np.ndarray, padded: bool, device: torch.device) -> "Packing":
        """Packs segments of these lengths [B], padded to the longest or not; `ValueError` if one is shorter than 1."""
        if lengths.min() < 1:
            raise ValueError(f"segment {lengths.argmin()} has {lengths.min()} tokens; each needs at least 1")
        order = np.argsort(-lengths, kind="stable")
        lengths_ = lengths[order]
        padded_lengths = np.full_like(lengths_, lengths_[0]) if padded else lengths_
        batch_sizes = len(order) - np.searchsorted(padded_lengths[::-1], np.arange(lengths_[0]), side="right")
        times = np.repeat(np.arange(lengths_[0]), batch_sizes)
        segments = np.arange(len(times)) - np.repeat(np.cumsum(batch_sizes) - batch_sizes, batch_sizes)
        starts = (np.cumsum(lengths) - lengths)[order]
        tokens = starts[segments] + np.minimum(times, lengths_[segments] - 1)
        rows = np.empty(int(lengths_.sum()), np.int64)
        valid = np.flatnonzero(times < lengths_[segments])
        rows[tokens[valid]] = valid
        sorted_indices, tokens_, rows_ = (torch.from_numpy(array).to(device) for array in (order, tokens, rows))
        return Packing(sorted_indices, tokens_, rows_, torch.from_numpy(batch_sizes))

    def unpack(self, rows: Tensor, finals: list[Tensor] | None) -> tuple[Tensor, State | None]:
        """Packed rows [R, H] in segment order [P, H], and the final states of each layer likewise, if there are any."""
        hidden = rows.index_select(0, self.rows)
        if finals is None:
            return hidden, None
        unsorted_indices = torch.argsort(self.sorted_indices)
        return hidden, tuple(final.index_select(1, unsorted_indices) for final in finals)

    def blocks(self) -> list[tuple[int, int]]:
        """(time steps, segments) of each run of steps with the same segments."""
        sizes, counts = torch.unique_consecutive(self.batch_sizes, return_counts=True)
        return list(zip(counts.tolist(), sizes.tolist(), strict=True))


class RecurrentLayers(nn.Module):
    """A stack of recurrent layers, each a module of its own, so that DDP can reduce one while the next is still at work."""

    def __init__(self, settings: config.Model):
        super().__init__()
        self.settings, self.cell = settings, CELLS[settings.cell]
        self.layers = nn.ModuleList(self.cell.layer(inputs, units) for inputs, units in self.shapes)
        residual = settings.residual != "none"
        self.shortcuts = nn.ModuleList(_shortcut(inputs, units) for inputs, units in self.shapes if residual)
        """With residual connections, for each layer: what its outputs are added to, from its inputs."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(input width, units) of each layer."""
        widths = self.settings.widths
        return list(zip((self.settings.embedding_width, *widths[:-1]), widths, strict=True))

    def zero_state(self, segments: int) -> State:
        """The state before anything was read: for each layer [C, segments, S] zeros."""
        like = next(self.parameters())
        shapes = (self.cell.state_shape(*shape) for shape in self.shapes)
        return tuple(like.new_zeros(vectors, segments, size) for vectors, size in shapes)

    def forward(
        self, embedding: nn.Module, ids: Tensor, lengths: np.ndarray, state: State | None, layout: Layout,
        return_state: bool, dropout_hashes: DropoutHashes | None = None, layers: list[Tensor] | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """Runs a batch of segments.

        Args:
            embedding: from ids [R] to rows [R, I].
            ids: [P] the segments' ids, end to end.
            lengths: [B] tokens of each segment, each at least 1; on the CPU.
            state: what each segment starts from, in segment order; zeros if None.
            return_state: whether to return the final states.
            dropout_hashes: hashes for what the settings drop before and between the layers and in their recurrent weights; nothing is
                dropped without them, and nothing after the last layer.
            layers: a list to which the rows [P, I] that each layer reads, before their dropout, are appended, in segment order.

        Returns:
            (hidden rows [P, H] in segment order, final state of each segment in segment order or None)
        """
        settings = self.settings
        if layout == "auto":
            dtype = type_under_autocast(next(self.parameters()).dtype, ids.device)
            layout = fastest(settings.cell, max(settings.widths), lengths, return_state, ids.device, dtype)
        packing = Packing.of(lengths, padded=layout == "rectangle" and not return_state, device=ids.device)
        rows = embedding(ids[packing.tokens])
        if dropout_hashes is not None:
            rows = drop_words(rows, dropout_hashes.words[packing.tokens], settings.dropout_embedding)
            row_hashes = dropout_hashes.rows[packing.tokens]
        state = tuple(part.index_select(1, packing.sorted_indices) for part in state or self.zero_state(len(lengths)))
        finals = []
        for number, (layer, start) in enumerate(zip(self.layers, state, strict=True)):
            if layers is not None:
                layers.append(rows.index_select(0, packing.rows))
            inputs = rows
            if dropout_hashes is not None:
                inputs = dropout(rows, row_hashes, number, settings.dropout_before(number))
            outputs, final = self._run_layer(layer, inputs, start, packing, layout, dropout_hashes, number)
            # The input before its dropout: a unit that several layers dropped would hardly ever arrive.
            rows = outputs + self.shortcuts[number](rows) if self.shortcuts else outputs
            finals.append(final)
        return packing.unpack(rows, finals if return_state else None)

    def _run_layer(
        self, layer: nn.Module, rows: Tensor, start: Tensor, packing: Packing, layout: Layout,
        dropout_hashes: DropoutHashes | None, number: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """One layer over packed rows [R, I], start [C, B, S] -> (rows [R, H], final states [C, B, S])."""
        weights, kernel = LayerWeights(dict(layer.named_parameters())), self.cell.torch_kernel
        if dropout_hashes is not None:
            for name in self.cell.recurrent_weights:
                weights.tensors[name] = drop_weights(weights.tensors[name], dropout_hashes, number, self.settings.weight_drop)
        if layout == "steps" or kernel is None:
            return self.cell.run(weights, rows, start, packing.batch_sizes)
        if layout == "packed":
            return torch_kernels.run_packed(kernel, weights, rows, start, packing.batch_sizes)
        return torch_kernels.run_blocks(kernel, weights, rows, start, packing.blocks())


def _shortcut(inputs: int, units: int) -> nn.Module:
    """From inputs [R, I] to rows [R, H]: as they are, or projected where the widths differ (He et al. 2016, equation 2)."""
    return nn.Identity() if inputs == units else nn.Linear(inputs, units, bias=False)

"""How a batch of segments runs through a stack of recurrent layers.

Shapes: B segments, P tokens (all segments end to end, 'segment order'), R rows as arranged, H units, C parts of a cell's state
(LSTM: h and c; else h). A segment starts from a state of its own and nothing flows between segments.

All layouts arrange the tokens time step by time step, longest segment first, so that row t * n + b is step t of segment b:

    steps       exactly the tokens, through our own recurrence (`packlm.model.kernels`)
    packed      exactly the tokens, as torch's PackedSequence: its kernels take the number of running segments of each step
    rectangle   torch's dense kernels over blocks of steps in which the number of segments stays the same. With states to hand back, a
                block ends where a segment ends; without, shorter segments are padded on their right up to one block, which is
                exact because a causal model cannot see what follows.
    auto        for each batch the fastest of them (`fastest`)

torch has no kernel for the Mogrifier: in every layout it runs through ours, padded in the rectangle.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from packlm import config
from packlm.model import cells
from packlm.model.cells import CELLS
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.regularization import drop_weights, drop_words, dropout

Layout = Literal["auto", "steps", "packed", "rectangle"]
State = tuple[Tensor, ...]
"""For each layer [C, B, H]: the state of B segments."""

DENSE_ENOUGH = 0.8
"""On CPUs, the share of a rectangle that has to be tokens for oneDNN's LSTM, which needs one, to be faster than ours, which does not:
0.66 to 0.84 of our time for the same rows (benchmarks/2026-11-24-recurrence.md)."""


def fastest(cell: str, lengths: np.ndarray, carry: bool, device: torch.device, dtype: torch.dtype) -> Layout:
    """The fastest layout for segments of these lengths: they agree to rounding, so it is a matter of time alone.

    GPUs: cuDNN's packed kernels. CPUs: ours, except where oneDNN can take over (an LSTM in float32 over dense blocks).
    """
    if cell == "mogrifier" or (device.type == "cpu" and (cell != "lstm" or dtype != torch.float32)):
        return "steps"
    if device.type != "cpu":
        return "packed"
    if carry:
        return "rectangle" if lengths.min() == lengths.max() else "steps"
    return "rectangle" if lengths.sum() >= DENSE_ENOUGH * lengths.max() * len(lengths) else "steps"


def layout_name(layout: Layout, cell: str, device: torch.device, dtype: torch.dtype) -> str:
    """A layout as a log names it: of auto, what it takes here."""
    if layout != "auto":
        return layout
    full, ragged = (fastest(cell, np.array(lengths), False, device, dtype) for lengths in ([2, 2], [9, 1]))
    return f"auto ({full})" if full == ragged else f"auto ({full} where it is full enough, else {ragged})"


@dataclass(frozen=True)
class Arrangement:
    """Where the tokens of a batch stand, time step by time step."""

    segments: Tensor
    """[B] segments, longest first."""
    rows: Tensor
    """[R] the token (in segment order) that each arranged row shows; padding shows its segment's last token."""
    places: Tensor
    """[P] the arranged row of each token."""
    batch_sizes: Tensor
    """[T] segments running at each time step, never rising; on the CPU."""

    @staticmethod
    def of(lengths: np.ndarray, padded: bool, device: torch.device) -> "Arrangement":
        """Arranges segments of these lengths ([B]), padded to the longest or not; `ValueError` if one is shorter than 1."""
        if lengths.min() < 1:
            raise ValueError(f"segment {lengths.argmin()} has {lengths.min()} tokens; each needs at least 1")
        order = np.argsort(-lengths, kind="stable")
        own = lengths[order]
        shown = np.full_like(own, own[0]) if padded else own
        batch_sizes = len(own) - np.searchsorted(shown[::-1], np.arange(own[0]), side="right")
        times = np.repeat(np.arange(own[0]), batch_sizes)
        which = np.arange(len(times)) - np.repeat(np.cumsum(batch_sizes) - batch_sizes, batch_sizes)
        starts = (np.cumsum(lengths) - lengths)[order]
        rows = starts[which] + np.minimum(times, own[which] - 1)
        places = np.empty(int(own.sum()), np.int64)
        valid = np.flatnonzero(times < own[which])
        places[rows[valid]] = valid
        segments, rows_, places_ = (torch.from_numpy(array).to(device) for array in (order, rows, places))
        return Arrangement(segments, rows_, places_, torch.from_numpy(batch_sizes))

    def undone(self, rows: Tensor, finals: list[Tensor] | None) -> tuple[Tensor, State | None]:
        """In segment order again: hidden rows [P, H] of arranged ones [R, H], and the final states of each layer, where there are any."""
        hidden = rows.index_select(0, self.places)
        if finals is None:
            return hidden, None
        back = torch.argsort(self.segments)
        return hidden, tuple(final.index_select(1, back) for final in finals)

    def blocks(self) -> list[tuple[int, int]]:
        """(time steps, segments) of each run of steps with the same segments."""
        sizes, counts = torch.unique_consecutive(self.batch_sizes, return_counts=True)
        return list(zip(counts.tolist(), sizes.tolist(), strict=True))


class Recurrence(nn.Module):
    """A stack of recurrent layers, each a module of its own, so that DDP can reduce one while the next is still at work."""

    def __init__(self, settings: config.Model):
        super().__init__()
        self.settings, self.cell, self.widths = settings, settings.cell, settings.widths
        inputs = (settings.embedding_width, *self.widths[:-1])
        self.layers = nn.ModuleList(CELLS[self.cell](i, h) for i, h in zip(inputs, self.widths, strict=True))

    def zero_state(self, segments: int) -> State:
        """The state before anything was read: for each layer [C, segments, H] zeros."""
        like = next(self.parameters())
        return tuple(like.new_zeros(cells.num_parts(self.cell), segments, width) for width in self.widths)

    def forward(
        self, embedding: nn.Module, ids: Tensor, lengths: np.ndarray, state: State | None, layout: Layout,
        carry: bool, noise: DropoutHashes | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """Runs a batch of segments.

        Args:
            embedding: from ids [R] to rows [R, I].
            ids: [P] the segments' ids, end to end.
            lengths: [B] tokens of each segment, each at least 1; on the CPU.
            state: what each segment starts from, in segment order; zeros if None.
            carry: whether the final states are wanted.
            noise: the hashes for what the settings drop before and between the layers and in their recurrent weights; nothing is
                dropped without them, and nothing behind the last layer.

        Returns:
            (hidden rows [P, H] in segment order, final state of each segment in segment order, None unless `carry`)
        """
        settings = self.settings
        if layout == "auto":
            layout = fastest(self.cell, lengths, carry, ids.device, next(self.parameters()).dtype)
        arranged = Arrangement.of(lengths, padded=layout == "rectangle" and not carry, device=ids.device)
        rows = embedding(ids[arranged.rows])
        if noise is not None:
            rows = drop_words(rows, noise.words[arranged.rows], settings.dropout_embedding)
            hashes = noise.rows[arranged.rows]
        state = tuple(part.index_select(1, arranged.segments) for part in state or self.zero_state(len(lengths)))
        finals = []
        for number, (layer, start) in enumerate(zip(self.layers, state, strict=True)):
            weights = cells.weights_of(layer)
            if noise is not None:
                rows = dropout(rows, hashes, number, settings.dropped_before(number))
                w_ih, w_hh, b_ih, b_hh = weights
                weights = (w_ih, drop_weights(w_hh, noise, number, settings.weight_drop), b_ih, b_hh)
            if layout == "steps" or self.cell == "mogrifier":
                rows, final = cells.run_steps(self.cell, layer, weights, rows, start, arranged.batch_sizes)
            elif layout == "packed":
                rows, final = cells.run_packed(self.cell, weights, rows, start, arranged.batch_sizes)
            else:
                rows, final = _run_blocks(self.cell, weights, rows, arranged, start)
            finals.append(final)
        return arranged.undone(rows, finals if carry else None)


def _run_blocks(cell: str, weights: cells.Weights, rows: Tensor, arranged: Arrangement, start: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over dense blocks, each taking up the state the one before left: rows [R, I] -> rows [R, H], final state."""
    outputs, finished, state, offset = [], [], start, 0
    for steps, segments in arranged.blocks():
        finished.append(state[:, segments:])
        block = rows[offset : offset + steps * segments].view(steps, segments, -1)
        output, state = cells.run_dense(cell, weights, block, state[:, :segments])
        outputs.append(output.reshape(steps * segments, -1))
        offset += steps * segments
    finished.append(state)  # the longest segments come first, so the last to finish go in front
    return _concatenate(outputs, 0), _concatenate(finished[::-1], 1)


def _concatenate(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)

"""How a batch of segments runs through a stack of recurrent layers.

Shapes: B segments, P tokens (all segments end to end, 'segment order'), R rows as arranged, H units, C parts of a cell's state
(LSTM: h and c; else h). A segment starts from a state of its own and nothing flows between segments.

Both layouts arrange the tokens time step by time step, longest segment first, so that row t * n + b is step t of segment b:

    packed      exactly the tokens, as torch's PackedSequence: its kernels take the number of running segments of each step
    rectangle   dense kernels over blocks of steps in which the number of segments stays the same. With states to hand back, a
                block ends where a segment ends; without, shorter segments are padded on their right up to one block, which is
                exact because a causal model cannot see what follows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from train import noise as noises

Layout = Literal["packed", "rectangle"]
State = tuple[Tensor, ...]
"""For each layer [C, B, H]: the state of B segments."""

CELLS: dict[str, Callable[[int, int], nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


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
        """Arranges segments of these lengths ([B], each at least 1), padded to the longest or not."""
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

    def blocks(self) -> list[tuple[int, int]]:
        """(time steps, segments) of each run of steps with the same segments."""
        sizes, counts = torch.unique_consecutive(self.batch_sizes, return_counts=True)
        return list(zip(counts.tolist(), sizes.tolist(), strict=True))


class Recurrence(nn.Module):
    """A stack of recurrent layers, each a module of its own, so that DDP can reduce one while the next is still at work."""

    def __init__(self, cell: str, input_width: int, widths: tuple[int, ...]):
        super().__init__()
        inputs = (input_width, *widths[:-1])
        self.cell, self.widths = cell, widths
        self.layers = nn.ModuleList(CELLS[cell](i, h) for i, h in zip(inputs, widths, strict=True))

    def zero_state(self, segments: int) -> State:
        """The state before anything was read: for each layer [C, segments, H] zeros."""
        parts = 2 if self.cell == "lstm" else 1
        like = next(self.parameters())
        return tuple(like.new_zeros(parts, segments, width) for width in self.widths)

    def forward(
        self, embedding: nn.Module, ids: Tensor, lengths: np.ndarray, state: State | None, layout: Layout,
        carry: bool, dropout: float = 0.0, noise: Tensor | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """Runs a batch of segments.

        Args:
            embedding: from ids [R] to rows [R, I].
            ids: [P] the segments' ids, end to end.
            lengths: [B] tokens of each segment, each at least 1; on the CPU.
            state: what each segment starts from, in segment order; zeros if None.
            carry: whether the final states are wanted.
            dropout, noise: share of units dropped before the first layer, between layers and after the last, with the rows'
                hashes [P] (`noise.row_noise`); nothing is dropped without them.

        Returns:
            (hidden rows [P, H] in segment order, final state of each segment in segment order, None unless `carry`)
        """
        arranged = Arrangement.of(lengths, padded=layout == "rectangle" and not carry, device=ids.device)
        rows = embedding(ids[arranged.rows])
        noise = noise[arranged.rows] if noise is not None and dropout else None
        state = tuple(part.index_select(1, arranged.segments) for part in state or self.zero_state(len(lengths)))
        run = _run_packed if layout == "packed" else _run_blocks
        finals = []
        for number, (layer, start) in enumerate(zip(self.layers, state, strict=True)):
            if noise is not None:
                rows = noises.dropout(rows, noise, number, dropout)
            rows, final = run(layer, rows, arranged, start)
            finals.append(final)
        if noise is not None:
            rows = noises.dropout(rows, noise, len(self.layers), dropout)
        hidden = rows.index_select(0, arranged.places)
        if not carry:
            return hidden, None
        back = torch.argsort(arranged.segments)
        return hidden, tuple(final.index_select(1, back) for final in finals)


def _run_packed(layer: nn.Module, rows: Tensor, arranged: Arrangement, start: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over a PackedSequence: rows [R, I], start [C, B, H] -> rows [R, H], final state [C, B, H]."""
    output, final = layer(PackedSequence(rows, arranged.batch_sizes), _split(start))
    return output.data, _join(final)


def _run_blocks(layer: nn.Module, rows: Tensor, arranged: Arrangement, start: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over dense blocks, each taking up the state the one before left: rows [R, I] -> rows [R, H], final state."""
    outputs, finished, state, offset = [], [], start, 0
    for steps, segments in arranged.blocks():
        finished.append(state[:, segments:])
        block = rows[offset : offset + steps * segments].view(steps, segments, -1)
        output, final = layer(block, _split(state[:, :segments]))
        outputs.append(output.reshape(steps * segments, -1))
        state, offset = _join(final), offset + steps * segments
    finished.append(state)  # the longest segments come first, so the last to finish go in front
    return _concatenate(outputs, 0), _concatenate(finished[::-1], 1)


def _split(state: Tensor) -> tuple[Tensor, Tensor] | Tensor:
    """[C, B, H] as torch's layers take it: (h, c) or h, each [1, B, H]."""
    parts = [part.contiguous() for part in state.split(1)]
    return (parts[0], parts[1]) if len(parts) == 2 else parts[0]


def _join(state: tuple[Tensor, Tensor] | Tensor) -> Tensor:
    return torch.cat(state) if isinstance(state, tuple) else state


def _concatenate(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)

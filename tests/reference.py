"""The simplest possible forms of what the trainer does, to hold it against: one segment at a time, one token after the other."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from packlm.batches.segments import Segments
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.language_model import Batch, LanguageModel
from packlm.model.recurrence import State


@dataclass
class Masks:
    """What is multiplied with what: nothing where there is None."""

    places: list[Tensor] | None = None
    """For each place of dropout [P, width]."""
    words: Tensor | None = None
    """[P] for the word read by each row."""
    weights: list[Tensor] | None = None
    """For each layer's recurrent weights [G * H, H]."""


def one_by_one(
    model: LanguageModel, batch: Batch, state: State, masks: Masks | None = None,
    ar: list[Tensor] | None = None, tar: list[Tensor] | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """Runs each segment by itself, each layer by itself, each time step by itself.

    Returns the summed loss (nats) and the final states, for each layer [C, B, H]. `ar` and `tar` take the squares that those penalties
    sum, one a row.
    """
    masks = masks or Masks()
    total = torch.zeros((), dtype=model.embedding.weight.dtype)
    finals: list[list[Tensor]] = [[] for _ in model.recurrence.layers]
    start = 0
    for segment, length in enumerate(batch.lengths.tolist()):
        states, last = [part[:, segment : segment + 1] for part in state], None
        for token in range(start, start + length):
            row = model.embedding(batch.inputs[token : token + 1])
            if masks.words is not None:
                row = row * masks.words[token]
            for number, layer in enumerate(model.recurrence.layers):
                row = row * masks.places[number][token] if masks.places else row
                recurrent = layer.weight_hh_l0 * masks.weights[number] if masks.weights else layer.weight_hh_l0
                row, states[number] = _step(model.recurrence.cell, layer, recurrent, row, states[number])
            if tar is not None and last is not None:
                tar.append(((row - last) ** 2).mean())
            last = row
            row = row * masks.places[-1][token] if masks.places else row
            if ar is not None:
                ar.append((row**2).mean())
            total = total + F.cross_entropy(model.projection(row), batch.targets[token : token + 1], reduction="sum")
        for number, final in enumerate(states):
            finals[number].append(final)
        start += length
    return total, tuple(torch.cat(parts, 1) for parts in finals)


def _step(cell: str, layer: torch.nn.Module, recurrent: Tensor, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of one time step, row [1, I], state [C, 1, H] (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al. 2014; Melis
    et al. 2020)."""
    before = state[0]
    if cell == "mogrifier":
        for number, gate in enumerate(layer.gates, 1):
            if number % 2:
                row = 2 * torch.sigmoid(before @ gate.T) * row
            else:
                before = 2 * torch.sigmoid(row @ gate.T) * before
    x = row @ layer.weight_ih_l0.T + layer.bias_ih_l0
    h = before @ recurrent.T + layer.bias_hh_l0
    if cell in ("rnn", "rnn_relu"):
        new = torch.tanh(x + h) if cell == "rnn" else torch.relu(x + h)
        return new, new[None]
    if cell in ("lstm", "mogrifier"):
        i, f, g, o = (x + h).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        new = torch.sigmoid(o) * torch.tanh(c)
        return new, torch.stack([new, c])
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, dim=-1), h.chunk(3, dim=-1)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    z = torch.sigmoid(xz + hz)
    new = (1 - z) * n + z * state[0]
    return new, new[None]


def random_batch(seed: int, lengths: list[int], vocab_size: int, carry: bool = True, noise: DropoutHashes | None = None) -> Batch:
    """Random ids in segments of these lengths."""
    generator = np.random.default_rng(seed)
    inputs, targets = (torch.from_numpy(generator.integers(0, vocab_size, sum(lengths))) for _ in range(2))
    return Batch(inputs, targets, np.array(lengths), noise, carry)


def one_segment(inputs: np.ndarray, targets: np.ndarray) -> Batch:
    """A batch of one segment."""
    return Segments(inputs.astype(np.int64), targets.astype(np.int64), np.array([len(targets)]), np.zeros(1)).batch(torch.device("cpu"))

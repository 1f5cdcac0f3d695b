"""The simplest possible forms of what the trainer does, to hold it against: one segment at a time, one token after the other."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.model import Batch, LanguageModel
from train.recurrence import State


def one_by_one(model: LanguageModel, batch: Batch, state: State, masks: list[Tensor] | None = None) -> tuple[Tensor, State]:
    """Runs each segment by itself, each layer by itself, each time step by itself.

    `masks`: for each place of dropout [P, width], what its rows are multiplied by. Returns the summed loss (nats) and the final
    states, for each layer [C, B, H].
    """
    total = torch.zeros((), dtype=model.embedding.weight.dtype)
    finals: list[list[Tensor]] = [[] for _ in model.recurrence.layers]
    start = 0
    for segment, length in enumerate(batch.lengths.tolist()):
        states = [part[:, segment : segment + 1] for part in state]
        for token in range(start, start + length):
            row = model.embedding(batch.inputs[token : token + 1])
            for number, layer in enumerate(model.recurrence.layers):
                row = row * masks[number][token] if masks else row
                row, states[number] = _step(model.recurrence.cell, layer, row, states[number])
            row = row * masks[-1][token] if masks else row
            total = total + F.cross_entropy(model.projection(row), batch.targets[token : token + 1], reduction="sum")
        for number, final in enumerate(states):
            finals[number].append(final)
        start += length
    return total, tuple(torch.cat(parts, 1) for parts in finals)


def _step(cell: str, layer: torch.nn.Module, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of one time step, row [1, I], state [C, 1, H] (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al. 2014)."""
    x = row @ layer.weight_ih_l0.T + layer.bias_ih_l0
    h = state[0] @ layer.weight_hh_l0.T + layer.bias_hh_l0
    if cell == "rnn":
        new = torch.tanh(x + h)
        return new, new[None]
    if cell == "lstm":
        i, f, g, o = (x + h).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        new = torch.sigmoid(o) * torch.tanh(c)
        return new, torch.stack([new, c])
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, dim=-1), h.chunk(3, dim=-1)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    z = torch.sigmoid(xz + hz)
    new = (1 - z) * n + z * state[0]
    return new, new[None]


def random_batch(seed: int, lengths: list[int], vocab_size: int, carry: bool = True, noise: Tensor | None = None) -> Batch:
    """Random ids in segments of these lengths."""
    generator = np.random.default_rng(seed)
    inputs, targets = (torch.from_numpy(generator.integers(0, vocab_size, sum(lengths))) for _ in range(2))
    return Batch(inputs, targets, np.array(lengths), noise, carry)

"""Reference implementations for tests, as simple as possible: one segment at a time, one token after the other."""

from collections.abc import Callable
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
    """Dropout masks, each multiplied with what it drops; None drops nothing."""

    inputs: list[Tensor] | None = None
    """[P, width] of each layer's inputs, and of the softmax's."""
    words: Tensor | None = None
    """[P] of the word vector that each row reads."""
    weights: list[Tensor] | None = None
    """[G * H, H] of each layer's recurrent weights."""


def one_by_one(
    model: LanguageModel, batch: Batch, state: State, masks: Masks | None = None,
    ar: list[Tensor] | None = None, tar: list[Tensor] | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """Runs each segment by itself, each layer by itself, each time step by itself.

    Returns the summed loss (nats) and the final states, for each layer [C, B, S]. The terms that AR and TAR sum are appended to `ar` and
    `tar`, one a row.
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
                read = row * masks.inputs[number][token] if masks.inputs else row
                weights = dict(layer.named_parameters())
                for name in model.recurrence.cell.recurrent_weights if masks.weights else ():
                    weights[name] = weights[name] * masks.weights[number]
                output, states[number] = EQUATIONS[model.settings.cell](weights, read, states[number])
                row = output if model.settings.residual == "none" else output + _projected(model, number, row)
            if tar is not None and last is not None:
                tar.append(((row - last) ** 2).mean())
            last = row
            row = row * masks.inputs[-1][token] if masks.inputs else row
            if ar is not None:
                ar.append((row**2).mean())
            total = total + F.cross_entropy(model.projection(row), batch.targets[token : token + 1], reduction="sum")
        for number, final in enumerate(states):
            finals[number].append(final)
        start += length
    return total, tuple(torch.cat(parts, 1) for parts in finals)


def _projected(model: LanguageModel, number: int, row: Tensor) -> Tensor:
    """What a residual connection adds to a layer's output."""
    weight = dict(model.named_parameters()).get(f"recurrence.shortcuts.{number}.weight")
    return row if weight is None else row @ weight.T


Step = Callable[[dict[str, Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
"""The equations of one time step: weights of a layer by name, row [1, I], state [C, 1, S] -> (output [1, H], state)."""


def _affine(weights: dict[str, Tensor], x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"], h @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]


def _rnn(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(sum(_affine(weights, row, state[0])))
    return h, h[None]


def _rnn_relu(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.relu(sum(_affine(weights, row, state[0])))
    return h, h[None]


def _gru(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    x, h = _affine(weights, row, state[0])
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, dim=-1), h.chunk(3, dim=-1)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    z = torch.sigmoid(xz + hz)
    new = (1 - z) * n + z * state[0]
    return new, new[None]


def _lstm(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = sum(_affine(weights, row, state[0])).chunk(4, dim=-1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, torch.stack([h, c])


def _mogrifier(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h = state[0]
    for number, gate in enumerate([gate for name, gate in weights.items() if name.startswith("gates.")], 1):
        if number % 2:
            row = 2 * torch.sigmoid(h @ gate.T) * row
        else:
            h = 2 * torch.sigmoid(row @ gate.T) * h
    return _lstm(weights, row, torch.stack([h, state[1]]))


def _qrnn(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    units = len(weights["bias_ih_l0"]) // 3
    c, before = state[0, :, :units], state[0, :, units:]
    of_x, of_before = weights["weight_ih_l0"].chunk(2, dim=1)
    z, f, o = (row @ of_x.T + before @ of_before.T + weights["bias_ih_l0"]).chunk(3, dim=-1)
    f = torch.sigmoid(f)
    c = f * c + (1 - f) * torch.tanh(z)
    return torch.sigmoid(o) * c, torch.cat([c, row], 1)[None]


def _sru(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    units, c = len(weights["bias_l0"]) // 2, state[0]
    matrices, (v_f, v_r), (b_f, b_r) = weights["weight_ih_l0"].split(units), weights["weight_c_l0"].chunk(2), weights["bias_l0"].chunk(2)
    f = torch.sigmoid(row @ matrices[1].T + v_f * c + b_f)
    r = torch.sigmoid(row @ matrices[2].T + v_r * c + b_r)
    c = f * c + (1 - f) * (row @ matrices[0].T)
    return r * c + (1 - r) * (row @ matrices[3].T if len(matrices) == 4 else row), c[None]


def _mlp(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    inputs = [row, *state]
    matrices = weights["weight_ih_l0"].chunk(4, dim=1)
    total = sum(one @ matrix.T for one, matrix in zip(inputs, matrices, strict=True))
    return torch.tanh(total + weights["bias_ih_l0"]), torch.stack(inputs[:3])


EQUATIONS: dict[str, Step] = {
    "rnn": _rnn, "rnn_relu": _rnn_relu, "gru": _gru, "lstm": _lstm, "mogrifier": _mogrifier, "qrnn": _qrnn, "sru": _sru, "mlp": _mlp,
}  # fmt: skip
"""As published (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al. 2014; Melis et al. 2020; Bradbury et al. 2017; Lei et al. 2018),
by the names of `model.cell`."""


def random_batch(
    seed: int, lengths: list[int], vocab_size: int, return_state: bool = True, dropout_hashes: DropoutHashes | None = None
) -> Batch:
    """Random ids in segments of these lengths."""
    generator = np.random.default_rng(seed)
    inputs, targets = (torch.from_numpy(generator.integers(0, vocab_size, sum(lengths))) for _ in range(2))
    return Batch(inputs, targets, np.array(lengths), dropout_hashes, return_state)


def one_segment(inputs: np.ndarray, targets: np.ndarray) -> Batch:
    """A batch of one segment."""
    return Segments(inputs.astype(np.int64), targets.astype(np.int64), np.array([len(targets)]), np.zeros(1)).batch(torch.device("cpu"))

"""A trained model with smaller weights, for CPUs: bfloat16 or int8. Half or a quarter of the memory, and faster where products take the
time: a wide model, a large vocabulary, a few rows at a time.

    bf16    weights and the rows they are multiplied with rounded to bfloat16, sums in float32, each product rounded to bfloat16
    int8    weights rounded to 255 steps of their row's largest, rows likewise when they are multiplied; sums exact, in int32

Biases, states, gates and the softmax are float32. With int8 a row's products do not depend on the rows beside it, to the last bit.

Shapes: R rows, I input width, O output width, H units, B segments, V vocabulary, P tokens.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from packlm.base.errors import PacklmError, RequestError
from packlm.config.settings import PRECISIONS
from packlm.model import cells, equations, loss
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.kernels import Steps
from packlm.model.language_model import Batch, LanguageModel
from packlm.model.recurrence import Arrangement, Layout, Recurrence, State


class Matrix(nn.Module):
    """A matrix of weights [O, I] in bfloat16."""

    weight: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("weight", weight.detach().bfloat16())

    def forward(self, rows: Tensor) -> Tensor:
        """rows [R, I] -> rows @ weight.T, [R, O], float32 both."""
        return (rows.bfloat16() @ self.weight.T).float()

    def take(self, ids: Tensor) -> Tensor:
        """Its rows [R, I] of some numbers [R], as float32."""
        return self.weight[ids].float()


class Int8Matrix(Matrix):
    """The same in int8: row o is `weight[o] * scales[o]`."""

    scales: Tensor

    def __init__(self, weight: Tensor):
        nn.Module.__init__(self)
        whole, scales = _rounded(weight.detach().float())
        self.register_buffer("weight", whole)
        self.register_buffer("scales", scales.squeeze(1))

    def forward(self, rows: Tensor) -> Tensor:
        whole, scales = _rounded(rows)
        return torch._int_mm(whole, self.weight.T).float().mul_(scales).mul_(self.scales)

    def take(self, ids: Tensor) -> Tensor:
        return self.weight[ids].float().mul_(self.scales[ids][:, None])


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 [R, I], the scale of each row [R, 1]): the largest of a row becomes 127."""
    scales = rows.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(rows.dtype).tiny * 127) / 127
    return (rows / scales).round_().to(torch.int8), scales


@cache
def has_exact_int8_sums() -> bool:
    """Whether this processor adds products of int8 without a limit on the way: some without VNNI stop at 16 bits."""
    largest = torch.full((2, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.T) == 64 * 127 * 127).all())


def quantize(model: LanguageModel, precision: str) -> LanguageModel:
    """The model in another precision; it is not changed itself.

    Raises:
        RequestError: there is no such precision.
        PacklmError: int8 on a processor that cannot add its products.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision == "int8" and not has_exact_int8_sums():
        raise PacklmError("precision int8: this processor adds products of int8 in 16 bits, which overflow; use bf16 or full")
    return model if precision == "full" else QuantizedModel(model, Int8Matrix if precision == "int8" else Matrix)


class QuantizedModel(LanguageModel):
    """A model whose matrices are of another class. For use only: it has no parameters, and so cannot be trained."""

    def __init__(self, model: LanguageModel, matrix: type[Matrix]):
        nn.Module.__init__(self)
        self.settings, self.vocab_size, self.layout, self.logits_bytes = model.settings, model.vocab_size, model.layout, model.logits_bytes
        vectors = matrix(model.embedding.weight)
        own = vectors if model.settings.tied else matrix(model.projection.weight)
        self.embedding = _Table(vectors)  # type: ignore[assignment]
        self.recurrence = _Layers(model.recurrence, matrix)
        self.projection = _Affine(own, model.projection.bias)  # type: ignore[assignment]
        self.eval()

    @torch.inference_mode()
    def losses(self, batch: Batch, state: State | None = None) -> tuple[Tensor, State | None]:
        found, final = self.scores(batch, state)
        return found.losses, final

    @torch.inference_mode()
    def scores(self, batch: Batch, state: State | None = None, marked: Tensor | None = None) -> tuple[loss.RowScores, State | None]:
        rows, final = self.hidden(batch.inputs, batch.lengths, state, batch.carry)
        size = max(1, self.logits_bytes // (4 * self.vocab_size))
        parts = zip(rows.split(size), batch.targets.split(size), strict=True)
        weights = None if marked is None else marked.float()
        found = [loss.scores_of(self.projection(some), wanted, weights) for some, wanted in parts]
        return loss.RowScores(*(torch.cat(column) for column in zip(*found, strict=True))), final


class _Table(nn.Module):
    """Word vectors: ids [R] -> [R, I]."""

    def __init__(self, matrix: Matrix):
        super().__init__()
        self.matrix = matrix

    @property
    def weight(self) -> Tensor:
        return self.matrix.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.matrix.take(ids)


class _Affine(nn.Module):
    """rows [R, I] -> [R, O]: a product and a bias."""

    bias: Tensor

    def __init__(self, matrix: Matrix, bias: Tensor):
        super().__init__()
        self.matrix = matrix
        self.register_buffer("bias", bias.detach().float())

    @property
    def weight(self) -> Tensor:
        return self.matrix.weight

    def forward(self, rows: Tensor) -> Tensor:
        return self.matrix(rows).add_(self.bias)


class _Layers(Recurrence):
    """The recurrent layers, time step by time step over packed rows, whatever the layout."""

    def __init__(self, recurrence: Recurrence, matrix: type[Matrix]):
        nn.Module.__init__(self)
        self.settings, self.cell, self.widths = recurrence.settings, recurrence.cell, recurrence.widths
        self.layers = nn.ModuleList(_Layer(self.cell, layer, matrix) for layer in recurrence.layers)

    def zero_state(self, segments: int) -> State:
        like = next(self.buffers())
        return tuple(torch.zeros(cells.num_parts(self.cell), segments, width, device=like.device) for width in self.widths)

    def forward(
        self, embedding: nn.Module, ids: Tensor, lengths: np.ndarray, state: State | None, layout: Layout,
        carry: bool, noise: DropoutHashes | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        arranged = Arrangement.of(lengths, padded=False, device=ids.device)
        rows, finals = embedding(ids[arranged.rows]), []
        for layer, start in zip(self.layers, state or self.zero_state(len(lengths)), strict=True):
            rows, final = layer(rows, start.index_select(1, arranged.segments), arranged.batch_sizes)
            finals.append(final)
        return arranged.undone(rows, finals if carry else None)


class _Layer(nn.Module):
    """One layer."""

    def __init__(self, cell: str, layer: nn.Module, matrix: type[Matrix]):
        super().__init__()
        self.cell = cell
        w_ih, w_hh, b_ih, b_hh = cells.weights_of(layer)
        self.inputs, self.recurrent = _Affine(matrix(w_ih), b_ih), _Affine(matrix(w_hh), b_hh)
        self.gates = nn.ModuleList(matrix(gate) for gate in layer.gates) if cell == "mogrifier" else nn.ModuleList()  # type: ignore[union-attr]

    def forward(self, rows: Tensor, start: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """rows [R, I], start [C, B, H], sizes [T] rows of each time step -> rows [R, H], final states [C, B, H]."""
        steps, state = Steps(sizes, rows.device), start
        given = rows if self.gates else self.inputs(rows)
        states = []
        for now in steps.of(given):
            state = self._step(now, state[:, : len(now)])
            states.append(state)
        after = torch.cat(states, 1)
        return after[0], torch.stack([steps.last_of(part) for part in after])

    def _step(self, now: Tensor, state: Tensor) -> Tensor:
        """A time step: what the inputs add to the gates, or for the Mogrifier the inputs themselves, and the state [C, n, H] before it."""
        h = state[0]
        if self.gates:
            now, h = equations.mogrify(now, h, self.gates, lambda rows, gate: gate(rows))
            now = self.inputs(now)
        own = self.recurrent(h)
        if self.cell == "gru":
            return equations.gru(now, own, h)[None]
        if self.cell in ("rnn", "rnn_relu"):
            return (torch.tanh if self.cell == "rnn" else torch.relu)(now + own)[None]
        return torch.stack(equations.lstm(now + own, state[1]))

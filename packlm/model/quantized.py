"""A trained model with quantized weights, for CPUs: half (bfloat16) or a quarter (int8) of the memory, and faster where matrix products
take most of the time: wide models, large vocabularies, few rows at a time.

    bf16    weights and the rows they are multiplied with in bfloat16, sums in float32, each product rounded to bfloat16
    int8    weights and rows scaled so that the largest of each row is 127; sums exact, in int32

Biases, states, gates and the softmax are float32. With int8 a row's products are batch-invariant, to the last bit.

Shapes: R rows, I input width, O output width, B segments, V vocabulary.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from packlm.base.errors import PacklmError, RequestError
from packlm.config.settings import PRECISIONS
from packlm.model.language_model import Batch, InferenceModel, LanguageModel
from packlm.model.recurrence import Packing, RecurrentLayers, State
from packlm.model.softmax import loss


class Matrix(nn.Module):
    """A weight matrix [O, I] in bfloat16."""

    weight: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("weight", weight.detach().bfloat16())

    def forward(self, rows: Tensor) -> Tensor:
        """rows [R, I] -> rows @ weight.T, [R, O], float32 both."""
        return (rows.bfloat16() @ self.weight.T).float()

    def take(self, ids: Tensor) -> Tensor:
        """Rows [R, I] of the matrix by their indices [R], as float32."""
        return self.weight[ids].float()


class Int8Matrix(Matrix):
    """A weight matrix in int8: row o is `weight[o] * scales[o]`."""

    scales: Tensor

    def __init__(self, weight: Tensor):
        nn.Module.__init__(self)
        quantized, scales = _quantize_rows(weight.detach().float())
        self.register_buffer("weight", quantized)
        self.register_buffer("scales", scales.squeeze(1))

    def forward(self, rows: Tensor) -> Tensor:
        quantized, scales = _quantize_rows(rows)
        return torch._int_mm(quantized, self.weight.T).float().mul_(scales).mul_(self.scales)

    def take(self, ids: Tensor) -> Tensor:
        return self.weight[ids].float().mul_(self.scales[ids][:, None])


def _quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric quantization by row: (int8 [R, I], scales [R, 1]); the largest absolute value of a row becomes 127."""
    scales = rows.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(rows.dtype).tiny * 127) / 127
    return (rows / scales).round_().to(torch.int8), scales


@cache
def has_exact_int8_sums() -> bool:
    """Whether this processor sums products of int8 without overflow: some without VNNI sum pairs in 16 bits."""
    largest = torch.full((2, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.T) == 64 * 127 * 127).all())


def quantize(model: LanguageModel, precision: str) -> LanguageModel:
    """A copy of the model in another precision.

    Raises:
        RequestError: there is no such precision.
        PacklmError: int8 on a processor that cannot sum its products exactly.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not has_exact_int8_sums():
        raise PacklmError("precision int8: this processor sums products of int8 in 16 bits, which overflow; use bf16 or full")
    return model if precision == "full" else QuantizedModel(model, Int8Matrix if precision == "int8" else Matrix)


class QuantizedModel(InferenceModel):
    """A model with quantized matrices: it has no parameters to train."""

    def __init__(self, model: LanguageModel, matrix: type[Matrix]):
        super().__init__(model, "steps")
        embedding = matrix(model.embedding.weight)
        self.embedding = _Embedding(embedding)  # type: ignore[assignment]
        self.recurrence = _QuantizedLayers(model.recurrence, matrix)
        self.projection = model.projection.logits_by(  # type: ignore[assignment]
            lambda weight, bias: _Linear(embedding if weight is model.embedding.weight else matrix(weight), bias)
        )
        self.eval()

    @torch.inference_mode()
    def scores(self, batch: Batch, state: State | None = None, marked: Tensor | None = None) -> tuple[loss.RowScores, State | None]:
        rows, final = self.hidden(batch.inputs, batch.lengths, state, batch.return_state)
        chunk = max(1, self.logits_bytes // (4 * self.vocab_size))
        chunks = zip(rows.split(chunk), batch.targets.split(chunk), strict=True)
        mask = None if marked is None else marked.float()
        scores = (loss.scores_from_logits(self.projection(rows_), targets, mask) for rows_, targets in chunks)
        return loss.joined(scores, batch.targets, torch.float32), final


class _Embedding(nn.Module):
    """ids [R] -> embeddings [R, I]."""

    def __init__(self, matrix: Matrix):
        super().__init__()
        self.matrix = matrix

    @property
    def weight(self) -> Tensor:
        return self.matrix.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.matrix.take(ids)


class _Linear(nn.Module):
    """rows [R, I] -> rows @ weight.T + bias, [R, O]."""

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


class _QuantizedLayers(RecurrentLayers):
    """The recurrent layers, time step by time step over packed rows, whatever the layout."""

    def __init__(self, recurrence: RecurrentLayers, matrix: type[Matrix]):
        nn.Module.__init__(self)
        self.settings, self.cell = recurrence.settings, recurrence.cell
        self.layers = nn.ModuleList(_QuantizedWeights(layer, matrix) for layer in recurrence.layers)
        self.shortcuts = nn.ModuleList(
            matrix(shortcut.weight) if isinstance(shortcut, nn.Linear) else shortcut for shortcut in recurrence.shortcuts
        )

    def zero_state(self, segments: int) -> State:
        device, shapes = next(self.buffers()).device, (self.cell.state_shape(*shape) for shape in self.shapes)
        return tuple(torch.zeros(vectors, segments, size, device=device) for vectors, size in shapes)

    def _run_layer(self, layer: Any, rows: Tensor, start: Tensor, packing: Packing, *_: Any) -> tuple[Tensor, Tensor]:
        return self.cell.unroll(layer, rows, start, packing.batch_sizes)


class _QuantizedWeights(nn.Module):
    """The weights of a layer (`cell.Products`): matrices quantized, everything else in float32."""

    def __init__(self, layer: nn.Module, matrix: type[Matrix]):
        super().__init__()
        self.matrices = nn.ModuleDict({_key(name): matrix(weight) for name, weight in layer.named_parameters() if weight.ndim == 2})
        for name, weight in layer.named_parameters():
            if weight.ndim != 2:
                self.register_buffer(_key(name), weight.detach().float())

    def affine(self, rows: Tensor, weight: str, bias: str | None = None) -> Tensor:
        product = self.matrices[_key(weight)](rows)
        return product if bias is None else product.add_(self.get_buffer(_key(bias)))

    def vector(self, name: str) -> Tensor:
        return self.get_buffer(_key(name))

    def sigmoid(self, rows: Tensor) -> Tensor:
        return torch.sigmoid(rows)


def _key(parameter: str) -> str:
    return parameter.replace(".", "_")  # modules and buffers have no dots in their names

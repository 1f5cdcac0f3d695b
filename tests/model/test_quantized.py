"""Quantized weights: the same equations as the float model's, exact integer products, and little loss of quality."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import packlm
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config, Model
from packlm.engine import Engine
from packlm.model import language_model as models
from packlm.model import quantized
from packlm.model.cells import CELLS
from packlm.model.language_model import Batch
from tests.small_models import wild


class Unquantized(quantized.Matrix):
    """A matrix that is not quantized, in float32: differences to the model are due to the equations."""

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self.weight = weight.detach().clone()

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.weight.T


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("tied", "residual", "cutoffs"),
    [(True, "none", ()), (False, "none", ()), (False, "project", ()), (True, "none", (4, 8)), (False, "none", (4,))],
)
def test_equations_are_those_of_the_model(cell: str, tied: bool, residual: str, cutoffs: tuple[int, ...]) -> None:
    widths = {"hidden": [5, 7] if tied else [7, 5], "embedding": 7, "tied": tied}
    settings = Model.model_validate({"cell": cell, "layers": 2, "residual": residual, "cutoffs": cutoffs} | widths)
    model = wild(models.build(settings, 11, seed=1), 3.0)
    lengths = np.array([3, 1, 4, 1])
    ids = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))
    start = tuple(torch.rand_like(part) for part in model.recurrence.zero_state(4))
    marked, batch = torch.arange(11) < 3, Batch(ids[0], ids[1], lengths, None, True)
    expected, expected_state = model.scores(batch, start, marked)
    actual, state = quantized.QuantizedModel(model, Unquantized).scores(batch, start, marked)
    for name, ours, theirs in zip(expected._fields, actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)
    for ours, theirs in zip(state or (), expected_state or (), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    actual, expected = (part.read(ids[0], lengths)[0] for part in (quantized.QuantizedModel(model, Unquantized), model))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_int8_products_are_sums_of_whole_numbers() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, rows = torch.randn(6, 37, generator=generator), torch.randn(4, 37, generator=generator)
    rows[2] = 0.0
    actual = quantized.Int8Matrix(weight)(rows)
    for r, row in enumerate(rows.tolist()):
        for o, other in enumerate(weight.tolist()):
            row_scale, scale = (max(map(abs, values)) / 127 for values in (row, other))
            total = sum(round(a / row_scale) * round(b / scale) for a, b in zip(row, other, strict=True)) if row_scale else 0
            assert actual[r, o].item() == pytest.approx(total * row_scale * scale, rel=1e-5, abs=1e-7)
    alone = torch.cat([quantized.Int8Matrix(weight)(row[None]) for row in rows])
    assert torch.equal(alone, actual)
    taken = quantized.Int8Matrix(weight).take(torch.tensor([5, 0]))
    assert (taken - weight[[5, 0]]).abs().max() <= weight.abs().max() / 127 / 2 * 1.001


@pytest.mark.parametrize(("precision", "bytes_each", "loss"), [("bf16", 2, 0.02), ("int8", 1, 0.1)])
def test_an_engine_of_quantized_weights(
    made: Callable[[str], Config], engine: Engine, precision: str, bytes_each: int, loss: float
) -> None:
    small = packlm.load(made("bpe").run.dir / "model", precision)
    matrices = [part for part in small.model.modules() if isinstance(part, quantized.Matrix)]
    assert {matrix.weight.element_size() for matrix in matrices} == {bytes_each}
    assert not list(small.model.parameters())
    texts = ["the cat sees a tree.", "a dog", "the river eats quietly under the small green tree."]
    assert small.perplexity(texts) == pytest.approx(engine.perplexity(texts), rel=loss)
    batched, alone = small.score(texts), [small.score([text])[0] for text in texts]
    close = 1e-2 if precision == "bf16" else 1e-5
    assert [item.log_prob for item in batched] == pytest.approx([item.log_prob for item in alone], rel=close)
    continued = small.generate(["the cat", ""], strategy="beam", beams=3, samples=3, max_tokens=6)
    assert all(items[0].log_prob >= items[-1].log_prob for items in continued) and len(continued) == 2


def test_impossible_precisions_are_refused_by_name(made: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Path = made("bpe").run.dir / "model"
    with pytest.raises(RequestError, match="precision: 'int4' is not one of full, bf16, int8"):
        packlm.load(folder, "int4")
    with pytest.raises(RequestError, match="precision int8 is for CPUs"):
        Engine.load(folder, torch.device("cuda"), precision="int8")
    monkeypatch.setattr(quantized, "has_exact_int8_sums", lambda: False)
    with pytest.raises(PacklmError, match="which overflow; use bf16"):
        packlm.load(folder, "int8")

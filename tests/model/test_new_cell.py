"""A new cell is one class: from its weights and equations it runs in every layout, step by step, quantized and in training.

The cell here is a minimal gated unit (Zhou et al. 2016) that also sees the input of the step before: it is not of the form W x + U h, its
state is wider than its output, and its output is not a part of its state.
"""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlm import config
from packlm.generation.stepper import Stepper
from packlm.model.cell import Cell, Products
from packlm.model.cells import CELLS
from packlm.model.language_model import Batch, LanguageModel, build
from packlm.model.quantized import QuantizedModel
from packlm.model.recurrence import Layout, State
from packlm.model.regularization import drop_weights, drop_words, dropout
from tests import reference
from tests.model.test_quantized import Unquantized
from tests.model.test_regularization import hashes_of_batch
from tests.reference import Masks, one_by_one, random_batch
from train.optim import optimizers

V, LENGTHS = 11, [3, 1, 4, 4, 2]


class MinimalGatedLayer(nn.Module):
    def __init__(self, input_width: int, units: int):
        super().__init__()
        shapes = {"gate": (units, units), "candidate": (units, units), "input": (2 * units, input_width), "previous": (units, input_width)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-0.7, 0.7)))
        self.bias = nn.Parameter(torch.empty(2 * units).uniform_(-0.7, 0.7))


class MinimalGated(Cell):
    """f = sigmoid(W x + V x_before + b + U h), n = tanh(W' x + b' + U' (f h)), h' = h + f (n - h); puts out 2 h'."""

    recurrent_weights = ("gate",)

    def layer(self, input_width: int, units: int) -> nn.Module:
        return MinimalGatedLayer(input_width, units)

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        return 1, units + input_width

    def project(self, products: Products, rows: Tensor) -> Tensor:
        return torch.cat([products.affine(rows, "input", "bias"), rows], 1)

    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        units = projected.shape[1] - state.shape[2]  # (2 H + I) - (H + I)
        h, before = state[0, :, :units], state[0, :, units:]
        inside, candidate, x = projected[:, :units], projected[:, units : 2 * units], projected[:, 2 * units :]
        f = products.sigmoid(inside + products.affine(before, "previous") + products.affine(h, "gate"))
        h = h + f * (torch.tanh(candidate + products.affine(f * h, "candidate")) - h)
        return 2 * h, torch.cat([h, x], 1)[None]


def equations(weights: dict[str, Tensor], row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    units = len(weights["gate"])
    h, before = state[0, :, :units], state[0, :, units:]
    x = row @ weights["input"].T + weights["bias"]
    f = torch.sigmoid(x[:, :units] + before @ weights["previous"].T + h @ weights["gate"].T)
    n = torch.tanh(x[:, units:] + (f * h) @ weights["candidate"].T)
    h = (1 - f) * h + f * n
    return 2 * h, torch.cat([h, row], 1)[None]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "mgu", MinimalGated())
    monkeypatch.setitem(reference.EQUATIONS, "mgu", equations)


def settings(**values: object) -> config.Model:
    """Settings with a cell that `config/model.py` does not list."""
    return config.Model.model_validate({"hidden": (5, 7), "embedding": 4, "tied": False} | values).model_copy(update={"cell": "mgu"})


def tiny(layout: str = "auto", **values: object) -> LanguageModel:
    return build(settings(**values), V, seed=1, layout=layout).double()


def random_state(model: LanguageModel, segments: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.rand(part.shape, generator=generator).to(part) for part in model.recurrence.zero_state(segments))


@pytest.mark.parametrize("return_state", [True, False])
@pytest.mark.parametrize("layout", get_args(Layout))
def test_loss_gradients_and_states_are_those_of_the_equations_in_every_layout(layout: str, return_state: bool) -> None:
    model = tiny(layout)
    state = tuple(part.requires_grad_() for part in random_state(model, len(LENGTHS)))
    batch = random_batch(3, LENGTHS, V, return_state)
    expected, expected_final = one_by_one(model, batch, state)
    sums, final = model(batch, state)
    torch.testing.assert_close(sums.nll, expected, rtol=1e-12, atol=1e-12)
    variables = [*model.parameters(), *state]
    for ours, theirs in zip(*(torch.autograd.grad(loss, variables) for loss in (sums.nll, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert (final is not None) == return_state
    for ours, theirs in zip(final or (), expected_final, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_dropout_falls_on_the_same_units_and_on_the_weights_that_the_cell_names(layout: str) -> None:
    model = tiny(layout, dropout=0.3, dropout_embedding=0.25, weight_drop=0.5)
    hashes = hashes_of_batch(LENGTHS, random_batch(3, LENGTHS, V).inputs.numpy())
    batch = random_batch(3, LENGTHS, V, dropout_hashes=hashes)
    masks = Masks(
        [dropout(torch.ones(len(batch.inputs), width).double(), hashes.rows, layer, 0.3) for layer, width in enumerate((4, 5, 7))],
        drop_words(torch.ones(len(batch.inputs), 1).double(), hashes.words, 0.25),
        [drop_weights(torch.ones_like(layer.gate), hashes, number, 0.5) for number, layer in enumerate(model.recurrence.layers)],
    )
    expected, _ = one_by_one(model, batch, model.recurrence.zero_state(len(LENGTHS)), masks)
    torch.testing.assert_close(model(batch)[0].nll, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_training_is_that_of_the_equations(layout: str) -> None:
    """Five updates on windows of two streams whose state is carried."""

    def train(model: LanguageModel, forward: Callable[[LanguageModel, Batch, State], tuple[Tensor, State]]) -> list[Tensor]:
        state, losses = model.recurrence.zero_state(2), []
        (optimizer,) = optimizers.build(config.Train(optimizer="adamw", lr=0.02), model)
        for step in range(5):
            nll, final = forward(model, random_batch(step, [4, 4], V), state)
            state = tuple(part.detach() for part in final)
            model.zero_grad()
            (nll / 8).backward()
            optimizer.step()
            losses.append(nll.detach())
        return [*losses, *(parameter.detach() for parameter in model.parameters())]

    def forward(model: LanguageModel, batch: Batch, state: State) -> tuple[Tensor, State]:
        sums, final = model(batch, state)
        return sums.nll, final

    for ours, theirs in zip(train(tiny(layout), forward), train(tiny(), one_by_one), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_steps_are_those_of_the_equations_with_the_same_bits_in_any_company() -> None:
    model = tiny().eval()
    stepper, batch = Stepper(model), random_batch(3, LENGTHS, V)
    prompts = np.split(batch.inputs.numpy(), np.cumsum(LENGTHS)[:-1])
    _, expected = one_by_one(model, batch, model.recurrence.zero_state(len(LENGTHS)))
    with torch.inference_mode():
        log_probs, state = stepper.read(prompts)
        for ours, theirs in zip(state, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_probs, model.read(batch.inputs, batch.lengths)[0], rtol=1e-12, atol=1e-12)
        together, _ = stepper.step(torch.arange(5), state)
        alone, _ = stepper.step(torch.arange(5)[3:4], tuple(part[:, 3:4] for part in state))
        assert torch.equal(alone, together[3:4])


def test_quantized_weights_use_the_same_equations() -> None:
    model, batch = tiny().float().eval(), random_batch(3, LENGTHS, V)
    state = random_state(model, len(LENGTHS))
    expected, expected_final = model.losses(batch, state)
    losses, final = QuantizedModel(model, Unquantized).losses(batch, state)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(final or (), expected_final or (), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

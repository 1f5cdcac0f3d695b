"""Every layout gives what running the segments one by one gives: loss, every gradient, every final state."""

from typing import get_args

import numpy as np
import pytest
import torch

from packlm import config
from packlm.model.cells import CELLS
from packlm.model.language_model import LanguageModel, build
from packlm.model.recurrence import Layout, Packing, fastest, layout_name
from tests.reference import one_by_one, random_batch

V = 11
LENGTHS = {"unequal": [3, 1, 4, 4, 2], "equal": [3, 3, 3], "single": [1], "rising": [1, 2, 3, 4, 5]}


def tiny(cell: str, layout: str, residual: str = "none") -> LanguageModel:
    widths = (7, 7) if residual == "add" else (5, 7)
    return build(config.Model(cell=cell, layers=2, hidden=widths, residual=residual), V, seed=1, layout=layout).double()


def gradients(model: LanguageModel, loss: torch.Tensor, state: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [*model.parameters(), *state]))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("return_state", [True, False])
@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", CELLS)
def test_a_layout_equals_one_by_one(cell, layout, return_state, lengths):
    check_one_by_one(tiny(cell, layout), return_state, lengths)


@pytest.mark.parametrize("residual", ["add", "project"])
@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", CELLS)
def test_a_layout_equals_one_by_one_with_residual_connections(cell, layout, residual):
    check_one_by_one(tiny(cell, layout, residual), True, LENGTHS["unequal"])
    check_one_by_one(tiny(cell, layout, residual), False, LENGTHS["rising"])


def check_one_by_one(model: LanguageModel, return_state: bool, lengths: list[int]) -> None:
    torch.manual_seed(2)
    state = tuple(torch.randn_like(part).requires_grad_() for part in model.recurrence.zero_state(len(lengths)))
    batch = random_batch(3, lengths, V, return_state)

    expected, expected_final = one_by_one(model, batch, state)
    sums, final = model(batch, state)

    torch.testing.assert_close(sums.nll, expected, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(gradients(model, sums.nll, state), gradients(model, expected, state), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)
    if return_state:
        for ours, reference in zip(final, expected_final, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)
    else:
        assert final is None


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_flow_from_final_states_too(cell, layout):
    """From every part of every layer's final state to the weights and to what the segments started from."""
    model, lengths = tiny(cell, layout), LENGTHS["unequal"]
    torch.manual_seed(2)
    state = tuple(torch.randn_like(part).requires_grad_() for part in model.recurrence.zero_state(len(lengths)))
    batch = random_batch(3, lengths, V)
    weights = [torch.randn_like(part) for part in state]
    actual, expected = (
        gradients(model, loss + sum((final * weight).sum() for final, weight in zip(finals, weights, strict=True)), state)
        for loss, finals in ((model(batch, state)[0].nll, model(batch, state)[1]), one_by_one(model, batch, state))
    )
    for ours, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", CELLS)
def test_float32_agrees_to_its_rounding(cell, layout):
    """float32 has kernels of its ours (oneDNN's LSTM)."""
    lengths = LENGTHS["unequal"]
    batch = random_batch(3, lengths, V, return_state=False)
    exact, rounded = tiny(cell, layout), tiny(cell, layout).float()
    expected, actual = (gradients(model, model(batch)[0].nll, ()) for model in (exact, rounded))
    for ours, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=1e-4, atol=1e-5)


def test_auto_takes_torchs_dense_lstm_where_a_rectangle_is_full_and_ours_elsewhere():
    cpu, equal, close, far = torch.device("cpu"), np.array([5, 5]), np.array([5, 4, 5]), np.array([9, 1, 1])
    assert fastest("lstm", 200, close, False, cpu, torch.float32) == fastest("lstm", 200, equal, True, cpu, torch.float32) == "rectangle"
    ours = [
        fastest("lstm", 200, far, False, cpu, torch.float32), fastest("lstm", 200, close, True, cpu, torch.float32),
        fastest("lstm", 200, equal, False, cpu, torch.float64), fastest("gru", 200, equal, False, cpu, torch.float32),
    ]  # fmt: skip
    assert set(ours) == {"steps"}
    many, bfloat16 = np.full(64, 5), torch.bfloat16
    assert [fastest("lstm", units, equal, True, cpu, bfloat16) for units in (200, 650)] == ["rectangle", "steps"]
    assert [fastest("lstm", 650, lengths, True, cpu, bfloat16) for lengths in (many, many + np.arange(64))] == ["rectangle", "steps"]
    assert fastest("lstm", 200, far, True, torch.device("cuda"), torch.float32) == "packed"
    assert layout_name("auto", "lstm", 200, cpu, torch.float32) == "auto (rectangle or steps)"
    assert layout_name("auto", "gru", 200, cpu, torch.float32) == "auto (steps)"
    assert layout_name("packed", "gru", 200, cpu, torch.float32) == "packed"


def test_a_segment_without_tokens_is_refused_by_its_number():
    with pytest.raises(ValueError, match="segment 1 has 0 tokens"):
        Packing.of(np.array([2, 0, 1]), padded=False, device=torch.device("cpu"))


@pytest.mark.parametrize("cell", CELLS)
def test_a_returned_state_continues_the_segment(cell):
    model = tiny(cell, "rectangle")
    batch = random_batch(4, [6, 6], V)
    whole, final = model.losses(batch)
    rows = torch.arange(12).view(2, 6)
    first, second = rows[:, :4].reshape(-1), rows[:, 4:].reshape(-1)
    state = None
    parts = []
    for part, length in ((first, 4), (second, 2)):
        piece = type(batch)(batch.inputs[part], batch.targets[part], np.array([length, length]), None, True)
        losses, state = model.losses(piece, state)
        parts.append(losses.view(2, length))
    torch.testing.assert_close(torch.cat(parts, 1).view(-1), whole, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(state, final, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ("qrnn", "sru", "mlp")])
def test_the_last_output_is_the_final_hidden_state(cell, layout):
    model = tiny(cell, layout)
    lengths = np.array(LENGTHS["unequal"])
    rows, final = model.hidden(random_batch(5, lengths.tolist(), V).inputs, lengths)
    torch.testing.assert_close(rows[np.cumsum(lengths) - 1], final[-1][0])


def test_a_packing_shows_every_token_once_and_pads_behind_the_end():
    lengths = np.array([2, 5, 1])
    exact = Packing.of(lengths, padded=False, device=torch.device("cpu"))
    assert exact.tokens.tolist() == [2, 0, 7, 3, 1, 4, 5, 6]
    assert exact.batch_sizes.tolist() == [3, 2, 1, 1, 1]
    assert exact.blocks() == [(1, 3), (1, 2), (3, 1)]
    padded = Packing.of(lengths, padded=True, device=torch.device("cpu"))
    assert padded.batch_sizes.tolist() == [3] * 5
    assert padded.tokens[padded.rows].tolist() == list(range(8))
    assert padded.tokens.view(5, 3)[:, 2].tolist() == [7] * 5


@pytest.mark.parametrize("residual", ["none", "project"])
@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("cell", CELLS)
def test_read_and_step_agree_with_whole_sequences(cell, layout, residual):
    model = tiny(cell, layout, residual)
    ids = torch.tensor([1, 2, 3, 4, 5])
    whole, _ = model.read(ids, np.array([2, 3]))
    state, log_probs = model.recurrence.zero_state(2), None
    log_probs, state = model.step(torch.tensor([1, 3]), state)
    log_probs, state = model.step(torch.tensor([2, 4]), state)
    torch.testing.assert_close(log_probs[0], whole[0])
    log_probs, state = model.step(torch.tensor([2, 5]), state)
    torch.testing.assert_close(log_probs[1], whole[1])
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(2).double())

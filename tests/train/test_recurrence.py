"""Both layouts give what running the segments one by one gives: loss, every gradient, every final state."""

import numpy as np
import pytest
import torch

from pipeline import config
from tests.train.reference import one_by_one, random_batch
from train import noise as noises
from train.model import LanguageModel, build
from train.recurrence import Arrangement

V = 11
LENGTHS = {"unequal": [3, 1, 4, 4, 2], "equal": [3, 3, 3], "single": [1], "rising": [1, 2, 3, 4, 5]}


def tiny(cell: str, layout: str, tied: bool = True, dropout: float = 0.0) -> LanguageModel:
    settings = config.Model(cell=cell, layers=2, hidden=(5, 7), embedding=7 if tied else 4, tied=tied, dropout=dropout)
    return build(settings, V, seed=1, layout=layout).double()


def gradients(model: LanguageModel, loss: torch.Tensor, state: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [*model.parameters(), *state]))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("carry", [True, False], ids=["carry", "no-carry"])
@pytest.mark.parametrize("layout", ["packed", "rectangle"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_layout_equals_one_by_one(cell, layout, carry, lengths):
    model = tiny(cell, layout)
    torch.manual_seed(2)
    state = tuple(torch.randn_like(part).requires_grad_() for part in model.recurrence.zero_state(len(lengths)))
    batch = random_batch(3, lengths, V, carry)

    expected, expected_final = one_by_one(model, batch, state)
    found, final = model(batch, state)

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for own, reference in zip(gradients(model, found, state), gradients(model, expected, state), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-10, atol=1e-12)
    if carry:
        for own, reference in zip(final, expected_final, strict=True):
            torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)
    else:
        assert final is None


@pytest.mark.parametrize("layout", ["packed", "rectangle"])
def test_dropout_falls_on_the_same_units_in_every_layout(layout):
    lengths = LENGTHS["unequal"]
    hashes = noises.row_noise(1, 5, np.arange(len(lengths)), np.array(lengths))
    model = tiny("lstm", layout, tied=False, dropout=0.4)
    batch = random_batch(3, lengths, V, noise=hashes)
    masks = [noises.dropout(torch.ones(sum(lengths), width).double(), hashes, place, 0.4) for place, width in enumerate((4, 5, 7))]
    state = model.recurrence.zero_state(len(lengths))
    expected, _ = one_by_one(model, batch, state, masks)
    plain, _ = one_by_one(model, batch, state)
    found, _ = model(batch, state)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert abs(found - plain) > 1e-6


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_state_taken_up_again_continues_the_segment(cell):
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
    for own, reference in zip(state, final, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)


def test_the_last_output_is_the_final_hidden_state():
    model = tiny("lstm", "packed")
    lengths = np.array(LENGTHS["unequal"])
    rows, final = model.hidden(random_batch(5, lengths.tolist(), V).inputs, lengths)
    torch.testing.assert_close(rows[np.cumsum(lengths) - 1], final[-1][0])


def test_an_arrangement_shows_every_token_once_and_pads_behind_the_end():
    lengths = np.array([2, 5, 1])
    exact = Arrangement.of(lengths, padded=False, device=torch.device("cpu"))
    assert exact.rows.tolist() == [2, 0, 7, 3, 1, 4, 5, 6]
    assert exact.batch_sizes.tolist() == [3, 2, 1, 1, 1]
    assert exact.blocks() == [(1, 3), (1, 2), (3, 1)]
    padded = Arrangement.of(lengths, padded=True, device=torch.device("cpu"))
    assert padded.batch_sizes.tolist() == [3] * 5
    assert padded.rows[padded.places].tolist() == list(range(8))
    assert padded.rows.view(5, 3)[:, 2].tolist() == [7] * 5


def test_read_and_step_agree_with_whole_sequences():
    model = tiny("gru", "rectangle")
    ids = torch.tensor([1, 2, 3, 4, 5])
    whole, _ = model.read(ids, np.array([2, 3]))
    state, log_probs = model.recurrence.zero_state(2), None
    log_probs, state = model.step(torch.tensor([1, 3]), state)
    log_probs, state = model.step(torch.tensor([2, 4]), state)
    torch.testing.assert_close(log_probs[0], whole[0])
    log_probs, state = model.step(torch.tensor([2, 5]), state)
    torch.testing.assert_close(log_probs[1], whole[1])
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(2).double())

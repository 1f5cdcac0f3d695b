"""Dropout masks follow the hashes in every layout; each measure acts in training, where its paper says."""

import numpy as np
import pytest
import torch

from packlm import config
from packlm.model.cells import CELLS
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.language_model import build
from packlm.model.recurrence import Layout
from packlm.model.regularization import activation, drop_weights, drop_words, dropout, temporal_activation
from tests.reference import Masks, one_by_one, random_batch

V, LENGTHS = 11, [3, 1, 4, 4, 2]
RATES = {"dropout_input": 0.3, "dropout_hidden": 0.2, "dropout_output": 0.4, "dropout_embedding": 0.25, "weight_drop": 0.5}


def hashes_of_batch(lengths, ids, step=5, locked=False):
    return DropoutHashes.of(1, step, np.arange(len(lengths)), np.array(lengths), np.asarray(ids), locked)


def masks(step=1, layer=0, rate=0.3, rows=2000, width=300, seed=1):
    hashes = DropoutHashes.of(seed, step, np.array([4]), np.array([rows]), np.zeros(rows), False).rows
    return dropout(torch.ones(rows, width), hashes, layer, rate)


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    kept = masks()
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    dropped = (kept == 0).double()
    # 600,000 draws: five standard deviations
    assert abs(dropped.mean() - 0.3) < 5 * (0.21 / 600_000) ** 0.5
    # Rows and columns vary as independent draws do.
    assert 0.8 < dropped.mean(0).std() / (0.21 / 2000) ** 0.5 < 1.2
    assert 0.8 < dropped.mean(1).std() / (0.21 / 300) ** 0.5 < 1.2


def test_masks_of_other_steps_layers_seeds_units_and_rows_are_unrelated():
    base = (masks() == 0).double()
    others = [masks(step=2), masks(layer=1), masks(seed=2), masks().roll(1, 0), masks().roll(1, 1)]
    for other in others:
        both = (base * (other == 0)).mean()
        assert abs(both - 0.09) < 5 * (0.09 * 0.91 / 600_000) ** 0.5


def test_locked_dropout_keeps_its_mask_over_a_segment_and_changes_it_between_segments():
    rows = torch.ones(sum(LENGTHS), 200)
    kept = dropout(rows, hashes_of_batch(LENGTHS, np.zeros(len(rows)), locked=True).rows, 0, 0.5)
    segments = kept.split(LENGTHS)
    for segment in segments:
        assert torch.equal(segment, segment[:1].expand_as(segment))
    assert not torch.equal(segments[0][0], segments[1][0])
    free = dropout(rows, hashes_of_batch(LENGTHS, np.zeros(len(rows))).rows, 0, 0.5)
    assert not torch.equal(free[0], free[1])


def test_a_dropped_word_is_dropped_wherever_it_occurs_in_the_step():
    ids = np.tile(np.arange(1000), 3)
    kept = drop_words(torch.ones(3000, 2), hashes_of_batch([3000], ids).words, 0.3)
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert torch.equal(kept[:1000], kept[1000:2000]) and torch.equal(kept[:1000], kept[2000:])
    assert abs((kept[:1000] == 0).double().mean() - 0.3) < 5 * (0.21 / 1000) ** 0.5
    other = drop_words(torch.ones(3000, 2), hashes_of_batch([3000], ids, step=6).words, 0.3)
    assert not torch.equal(kept, other)


def test_dropped_weights_stay_dropped_for_a_step_and_differ_between_steps_and_layers():
    weight = torch.ones(400, 100)
    drops = [drop_weights(weight, hashes_of_batch([1], [0], step), layer, 0.5) for step, layer in ((1, 0), (1, 0), (2, 0), (1, 1))]
    assert torch.equal(drops[0], drops[1])
    for other in drops[2:]:
        assert abs(((drops[0] == 0) & (other == 0)).double().mean() - 0.25) < 5 * (0.1875 / 40_000) ** 0.5
    assert set(drops[0].unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("layout", ["steps", "packed", "rectangle"])
@pytest.mark.parametrize(("cell", "residual"), [*((cell, "none") for cell in CELLS), ("lstm", "project")])
def test_everything_that_is_dropped_falls_on_the_same_units_in_every_layout(cell, residual, layout: Layout, locked):
    """Against masks multiplied in by hand, one segment after the other; AR and TAR too; loss and gradients."""
    settings = config.Model(cell=cell, hidden=(5, 7), tied=False, embedding=4, locked=locked, residual=residual, **RATES)
    model = build(settings, V, 1, layout).double()
    ids = random_batch(3, LENGTHS, V).inputs.numpy()
    hashes = hashes_of_batch(LENGTHS, ids, locked=locked)
    batch, state = random_batch(3, LENGTHS, V, dropout_hashes=hashes), model.recurrence.zero_state(len(LENGTHS))
    ones = [torch.ones(sum(LENGTHS), width).double() for width in (4, 5, 7)]
    by_hand = Masks(
        [dropout(one, hashes.rows, layer, settings.dropout_before(layer)) for layer, one in enumerate(ones)],
        drop_words(torch.ones(sum(LENGTHS), 1).double(), hashes.words, 0.25),
        [
            drop_weights(torch.ones_like(layer.get_parameter(name)), hashes, number, 0.5)
            for number, layer in enumerate(model.recurrence.layers)
            for name in CELLS[cell].recurrent_weights
        ],
    )
    ar, tar = [], []
    nll, _ = one_by_one(model, batch, state, by_hand, ar, tar)
    sums, _ = model(batch, state, penalties=True)
    for ours, theirs in zip(sums, (nll, sum(ar), sum(tar)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours, expected = (torch.autograd.grad(n + 2 * a + 3 * t, list(model.parameters())) for n, a, t in (sums, (nll, sum(ar), sum(tar))))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", ["steps", "packed", "rectangle"])
@pytest.mark.parametrize("name", [*RATES, "dropout"])
def test_each_measure_acts_in_training_and_not_in_use(name, layout):
    plain, dropping = (build(config.Model(hidden=8, **({"dropout": 0} | more)), V, 1, layout).double() for more in ({}, {name: 0.4}))
    for model in (plain, dropping):
        model.embedding.weight.data.mul_(10)
    batch = random_batch(3, LENGTHS, V)
    noisy = random_batch(3, LENGTHS, V, dropout_hashes=hashes_of_batch(LENGTHS, batch.inputs.numpy()))
    assert dropping.settings.has_dropout and not plain.settings.has_dropout
    assert abs(plain(batch)[0].nll - dropping(noisy)[0].nll) > 1e-4
    assert plain(batch)[0].nll == dropping(batch)[0].nll == plain(noisy)[0].nll


def test_penalties_are_the_means_that_the_paper_sums():
    rows = torch.tensor([[1.0, 3.0], [2.0, 3.0], [0.0, 0.0], [4.0, 0.0]])
    assert activation(rows).item() == 5.0 + 6.5 + 0.0 + 8.0
    assert temporal_activation(rows, np.array([4])).item() == 0.5 + 6.5 + 8.0
    assert temporal_activation(rows, np.array([2, 2])).item() == 0.5 + 8.0
    assert temporal_activation(rows[:1], np.array([1])).item() == 0.0

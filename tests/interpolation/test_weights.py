"""Weights by expectation maximization: no grid finds better ones."""

import itertools

import numpy as np
import pytest

from packlm.interpolation import weights

GENERATOR = np.random.default_rng(1)
PROBABILITIES = GENERATOR.beta(0.4, 2.0, (400, 3)) + 1e-6
KNOWN = np.ones((400, 3), bool)


def test_no_grid_finds_better_weights() -> None:
    tuned = weights.tune(PROBABILITIES, KNOWN)
    assert tuned.sum() == pytest.approx(1)
    best = weights.losses(PROBABILITIES, KNOWN, tuned).mean()
    for first, second in itertools.product(np.linspace(0, 1, 41), repeat=2):
        if first + second <= 1:
            other = np.array([first, second, 1 - first - second])
            assert best <= -np.log(PROBABILITIES @ other).mean() + 1e-6


def test_where_a_model_knows_nothing_the_others_share_its_weight() -> None:
    known, probabilities = KNOWN.copy(), PROBABILITIES.copy()
    known[:50, 2], probabilities[:50, 2] = False, 0
    assert weights.tune(probabilities, known).tolist() == weights.tune(PROBABILITIES[50:], KNOWN[50:]).tolist()
    found = weights.losses(probabilities, known, np.array([0.3, 0.2, 0.5]))
    assert found[:50].tolist() == pytest.approx((-np.log(probabilities[:50] @ [0.6, 0.4, 0])).tolist())
    assert found[50:].tolist() == pytest.approx((-np.log(probabilities[50:] @ [0.3, 0.2, 0.5])).tolist())


def test_halves_are_measured_with_the_weights_of_the_other() -> None:
    first, second = (weights.tune(PROBABILITIES[half], KNOWN[half]) for half in (slice(0, 200), slice(200, 400)))
    expected = -(np.log(PROBABILITIES[:200] @ second).sum() + np.log(PROBABILITIES[200:] @ first).sum()) / 400
    assert weights.cross_validated_loss(PROBABILITIES, KNOWN) == pytest.approx(expected)
    assert expected > weights.losses(PROBABILITIES, KNOWN, weights.tune(PROBABILITIES, KNOWN)).mean()


def test_a_useless_model_keeps_a_little_weight() -> None:
    useless = np.concatenate([PROBABILITIES, PROBABILITIES[:, :1] * 1e-9], axis=1)
    tuned = weights.tune(useless, np.ones_like(useless, bool))
    assert tuned[3] == pytest.approx(weights.MINIMUM, rel=1e-5)
    assert tuned.sum() == pytest.approx(1)
    assert tuned[:3] == pytest.approx(weights.tune(PROBABILITIES, KNOWN), abs=1e-4)

"""Word errors and the weights that minimize them, compared with exhaustive search."""

import itertools
from functools import cache

import numpy as np
import pytest

from serve.rescore import word_errors
from serve.rescore.tuning import Candidates, best_along, envelope, total_errors, tune


def plain_errors(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> int:
    """The edit distance by its recursive definition."""

    @cache
    def rest(one: int, other: int) -> int:
        if one == len(reference) or other == len(hypothesis):
            return len(reference) - one + len(hypothesis) - other
        return min(
            rest(one + 1, other) + 1, rest(one, other + 1) + 1, rest(one + 1, other + 1) + (reference[one] != hypothesis[other])
        )  # fmt: skip

    return rest(0, 0)


def test_errors_are_the_edit_distance() -> None:
    every = [words for length in range(5) for words in itertools.product("ab", repeat=length)]
    for one, other in itertools.product(every, every):
        assert word_errors.errors(one, other) == plain_errors(one, other)
    generator = np.random.default_rng(1)
    for _ in range(50):
        one, other = (tuple(generator.choice(list("abcd"), generator.integers(0, 12)).tolist()) for _ in range(2))
        assert word_errors.errors(one, other) == plain_errors(one, other)


def random_lists(seed: int, lists: int = 12) -> list[Candidates]:
    """Lists with coarse scores, so that ties and coinciding crossings are frequent."""
    generator = np.random.default_rng(seed)
    candidates = []
    for _ in range(lists):
        count = int(generator.integers(1, 7))
        features = generator.integers(-4, 5, (count, 2)).astype(float)
        candidates.append(Candidates(generator.integers(-6, 7, count).astype(float), features, generator.integers(0, 5, count)))
    return candidates


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("signed", [False, True])
def test_one_weight_reaches_the_minimum_over_all_its_values(seed: int, signed: bool) -> None:
    lists, weights = random_lists(seed), np.array([0.5, -0.25])
    value, fewest = best_along(lists, weights, 0, signed)
    crossings = {0.0}
    for one in lists:
        rest = one.fixed + one.features[:, 1] * weights[1]
        for a, b in itertools.combinations(range(len(rest)), 2):
            if one.features[a, 0] != one.features[b, 0]:
                crossings.add((rest[a] - rest[b]) / (one.features[b, 0] - one.features[a, 0]))
    bounds = sorted(crossing for crossing in crossings if signed or crossing >= 0)
    middles = [(left + right) / 2 for left, right in itertools.pairwise(bounds) if right - left > 1e-9]
    tried = [*middles, bounds[-1] + 1, *([bounds[0] - 1] if signed else [])]
    errors = [total_errors(lists, np.array([weight, weights[1]])) for weight in tried]
    assert fewest == min(errors) == total_errors(lists, np.array([value, weights[1]]))
    assert signed or value >= 0
    # No equally good value is nearer to 0: the value is in the interval of the nearest good one on its side.
    good = [weight for weight, count in zip(tried, errors, strict=True) if count == fewest and weight * value >= 0]
    nearest = min(good, key=abs)
    between = [count for weight, count in zip(tried, errors, strict=True) if min(nearest, value) <= weight <= max(nearest, value)]
    assert set(between) == {fewest}


def test_the_smallest_of_equally_good_weights_is_taken() -> None:
    same = Candidates(np.array([0.0, -1.0]), np.array([[0.0], [1.0]]), np.array([2, 2]))
    assert best_along([same], np.array([5.0]), 0, False) == (0.0, 2)
    assert tune([same], np.array([5.0]), [0]).tolist() == [0.0]
    better = Candidates(np.array([0.0, -1.0]), np.array([[0.0], [1.0]]), np.array([2, 1]))
    assert best_along([better], np.array([0.0]), 0, False) == (2.0, 1)
    # A crossing at 0 itself: there the first of the list wins, the better one only beyond.
    at_zero = Candidates(np.array([0.0, 0.0]), np.array([[0.0], [1.0]]), np.array([2, 1]))
    value, fewest = best_along([at_zero], np.array([0.0]), 0, False)
    assert fewest == 1 == total_errors([at_zero], np.array([value])) and value > 0
    assert best_along([at_zero], np.array([0.0]), 0, True)[0] == value
    assert best_along([Candidates(-better.fixed, -better.features, better.errors)], np.array([0.0]), 0, False) == (0.0, 1)


def test_the_envelope_is_the_highest_line_everywhere() -> None:
    generator = np.random.default_rng(2)
    for _ in range(200):
        intercepts, slopes = generator.integers(-5, 6, (2, int(generator.integers(1, 9)))).astype(float)
        crossings, lines = envelope(intercepts, slopes)
        assert len(lines) == len(crossings) + 1 and (np.diff(crossings) > 0).all()
        for x in np.linspace(-11.03, 11.07, 97):
            line = lines[np.searchsorted(crossings, x)]
            assert line == np.argmax(np.round(intercepts + slopes * x, 9))


@pytest.mark.parametrize("seed", range(10))
def test_tuning_ends_where_no_single_weight_gains(seed: int) -> None:
    lists = random_lists(seed)
    start = np.zeros(2)
    weights = tune(lists, start, [0, 1], [1])
    fewest = total_errors(lists, weights)
    assert fewest <= best_along(lists, start, 0, False)[1] and weights[0] >= 0
    assert best_along(lists, weights, 0, False)[1] == best_along(lists, weights, 1, True)[1] == fewest
    assert tune(lists, np.array([0.0, 0.25]), [0], [1])[1] == 0.25
    assert tune(lists, start, []).tolist() == [0.0, 0.0]

"""Word errors and the weights that minimise them: equal to what trying everything gives."""

import itertools
from functools import cache

import numpy as np
import pytest

from serve.rescore import word_errors
from serve.rescore.tuning import Candidates, best_along, envelope, total_errors, tune


def plain_errors(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> int:
    """The edit distance as it is defined: the cheapest of all ways to go on."""

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


def made_up(seed: int, lists: int = 12) -> list[Candidates]:
    """Lists with coarse scores, so that ties and crossings at one place are frequent."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(lists):
        count = int(generator.integers(1, 7))
        features = generator.integers(-4, 5, (count, 2)).astype(float)
        found.append(Candidates(generator.integers(-6, 7, count).astype(float), features, generator.integers(0, 5, count)))
    return found


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("signed", [False, True])
def test_one_weight_reaches_the_minimum_over_all_its_values(seed: int, signed: bool) -> None:
    lists, weights = made_up(seed), np.array([0.5, -0.25])
    value, fewest = best_along(lists, weights, 0, signed)
    crossings = {0.0}
    for one in lists:
        rest = one.fixed + one.features[:, 1] * weights[1]
        for a, b in itertools.combinations(range(len(rest)), 2):
            if one.features[a, 0] != one.features[b, 0]:
                crossings.add((rest[a] - rest[b]) / (one.features[b, 0] - one.features[a, 0]))
    places = sorted(place for place in crossings if signed or place >= 0)
    middles = [(left + right) / 2 for left, right in itertools.pairwise(places) if right - left > 1e-9]
    tried = [*middles, places[-1] + 1, *([places[0] - 1] if signed else [])]
    errors = [total_errors(lists, np.array([place, weights[1]])) for place in tried]
    assert fewest == min(errors) == total_errors(lists, np.array([value, weights[1]]))
    assert signed or value >= 0
    # Nothing as good lies nearer to 0: the value is in the stretch of the nearest good place on its side.
    good = [place for place, found in zip(tried, errors, strict=True) if found == fewest and place * value >= 0]
    nearest = min(good, key=abs)
    between = [found for place, found in zip(tried, errors, strict=True) if min(nearest, value) <= place <= max(nearest, value)]
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
        for place in np.linspace(-11.03, 11.07, 97):
            line = lines[np.searchsorted(crossings, place)]
            assert line == np.argmax(np.round(intercepts + slopes * place, 9))


@pytest.mark.parametrize("seed", range(10))
def test_weights_in_turns_end_where_none_of_them_gains(seed: int) -> None:
    lists = made_up(seed)
    start = np.zeros(2)
    found = tune(lists, start, [0, 1], [1])
    fewest = total_errors(lists, found)
    assert fewest <= best_along(lists, start, 0, False)[1] and found[0] >= 0
    assert best_along(lists, found, 0, False)[1] == best_along(lists, found, 1, True)[1] == fewest
    assert tune(lists, np.array([0.0, 0.25]), [0], [1])[1] == 0.25
    assert tune(lists, start, []).tolist() == [0.0, 0.0]

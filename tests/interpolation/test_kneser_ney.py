"""Kneser-Ney n-grams: compared with the definition written with dictionaries, and as a distribution."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from packlm.interpolation.kneser_ney import _discounts, kneser_ney

V = 6
START = V


def text(seed: int, sentences: int) -> list[list[int]]:
    """Sentences of skewed random ids, each ending in 0."""
    generator = np.random.default_rng(seed)
    return [[*np.minimum(generator.geometric(0.4, generator.integers(0, 7)), V - 1).tolist(), 0] for _ in range(sentences)]


def flat(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(sentences), np.cumsum([len(sentence) for sentence in sentences])


class ByDefinition:
    """Chen and Goodman's equations, one word at a time."""

    def __init__(self, sentences: list[list[int]], order: int):
        self.order = order
        self.raw = [Counter() for _ in range(order + 1)]
        preceded = [defaultdict(set) for _ in range(order + 1)]
        for sentence in sentences:
            padded = (START, *sentence)
            for length in range(1, order + 1):
                for end in range(length, len(padded) + 1):
                    gram = padded[end - length : end]
                    self.raw[length][gram] += 1
                    if end > length:
                        preceded[length][gram].add(padded[end - length - 1])
        self.counts = []
        for length in range(order + 1):
            counts = {
                gram: count if length == order or gram[0] == START else len(preceded[length][gram])
                for gram, count in self.raw[length].items()
            }
            counts.pop((START,), None)
            self.counts.append(counts)

    def probability(self, word: int, before: tuple[int, ...]) -> float:
        lower = 1 / V if not before else self.probability(word, before[1:])
        counts = self.counts[len(before) + 1]
        after = {gram: count for gram, count in counts.items() if gram[:-1] == before}
        total = sum(after.values())
        if not total:
            return lower
        discounts = _discounts(np.array(list(counts.values())))
        backoff = sum(discounts[min(count, 3)] for count in after.values()) / total
        count = after.get((*before, word), 0)
        return max(count - discounts[min(count, 3)], 0) / total + backoff * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [3, 60])
@pytest.mark.parametrize("longest", [None, 1, 2], ids=["any", "1", "2"])  # shorter than the order: there are no such n-grams
def test_probabilities_are_those_of_the_definition(order, size, longest):
    known, unseen = [[*sentence[:-1][: longest and longest - 1], 0] for sentence in text(1, size)], text(2, 15)
    model, plain = kneser_ney(*flat(known), V, order), ByDefinition(known, order)
    for sentences in (known[:10], unseen):
        probabilities = np.exp(model.log_probs(*flat(sentences)))
        expected = []
        for sentence in sentences:
            padded = (START, *sentence)
            expected += [plain.probability(padded[i], padded[max(0, i - order + 1) : i]) for i in range(1, len(padded))]
        assert probabilities.tolist() == pytest.approx(expected, rel=1e-12)


def test_probabilities_after_any_context_sum_to_one():
    model = kneser_ney(*flat(text(1, 60)), V, 5)
    for context in ([], [1], [1, 2], [5, 5, 5, 5], [2, 1, 1, 3]):
        last = []
        for word in range(V):
            log_probs = model.log_probs(np.array([*context, word]), np.array([len(context) + 1]))
            last.append(np.exp(log_probs[-1]))
        assert sum(last) == pytest.approx(1, rel=1e-12)


def test_discounts_are_those_of_the_equation():
    counts = np.repeat([1, 2, 3, 4, 9], [10, 6, 4, 3, 5])
    y = 10 / 22
    assert _discounts(counts).tolist() == pytest.approx([0, 1 - 2 * y * 0.6, 2 - 3 * y * 4 / 6, 3 - 4 * y * 3 / 4])
    assert _discounts(np.array([1, 1, 2])).tolist() == [0, 0.5, 1.0, 1.5]


def test_unseen_words_have_a_probability_where_the_equation_gives_no_discount():
    times = [1, 1, *[2] * 3, *[3] * 4, *[4] * 16]  # from which the discount of 3 and more comes out as -1
    sentences = [[word, 0] for word, count in enumerate(times, 1) for _ in range(count)]
    model = kneser_ney(*flat(sentences), len(times) + 1, 2)
    after_the_last = model.log_probs(np.array([len(times), 1]), np.array([2]))
    assert np.isfinite(after_the_last).all()
    assert _discounts(np.array(times)).tolist() == [0, 0.5, 1.0, 1.5]

"""Sampling tokens: the distribution, and what the random numbers are a function of."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from packlm.config import Generate
from packlm.generation import sampling
from packlm.generation.sampling import sample_ids
from packlm.model.language_model import LanguageModel
from tests.generation.enumeration import EOS, Sequence, as_pairs, chain, chi_square_is_usual, filtered, run, tiny


def test_greedy_takes_the_most_likely_token() -> None:
    model = tiny(vocabulary=9)
    (generation,) = run(model, [(EOS, 4, 2)], strategy="greedy", max_tokens=12)[0]
    read: Sequence = (EOS, 4, 2)
    for value in generation.ids.tolist():
        assert int(chain(model, read)[0].argmax()) == value
        read = (*read, value)


SAMPLED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "top_k": 3},
    {"temperature": 1.3, "top_p": 0.7},
    {"temperature": 1.6, "min_p": 0.2},
    {"temperature": 1.6, "typical_p": 0.8},
    {"temperature": 1.9, "top_k": 5, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9},
]


@pytest.mark.parametrize("filters", SAMPLED, ids=str)
def test_samples_follow_the_filtered_distribution(filters: dict[str, Any]) -> None:
    model, samples = tiny(seed=5, vocabulary=6), 4000
    counts = Counter(ids for ids, _ in as_pairs(run(model, [(EOS, 1)], samples=samples, max_tokens=2, **filters)[0]))
    assert chi_square_is_usual(counts, distribution(model, filters))


def distribution(model: LanguageModel, filters: dict[str, Any]) -> dict[Sequence, float]:
    """The probability of every continuation of at most two tokens."""
    probabilities: dict[Sequence, float] = {}
    for first, chance in enumerate(filtered(chain(model, (EOS, 1))[0].exp().numpy(), **filters)):
        if first == EOS:
            probabilities[(first,)] = chance
        else:
            second = filtered(chain(model, (EOS, 1, first))[0].exp().numpy(), **filters)
            probabilities |= {(first, value): chance * other for value, other in enumerate(second)}
    return probabilities


def test_sorting_a_part_or_all_ids_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for the smallest set of ids with some probability sorts a few first."""
    log_probs = torch.randn(40, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.arange(1, 41)[:, None] / 8
    log_probs = log_probs.log_softmax(-1)
    for filters in ({"top_p": 0.8}, {"typical_p": 0.7}, {"top_p": 0.9, "min_p": 0.01, "typical_p": 0.8}):
        expected = np.stack([filtered(row, **filters) for row in log_probs.exp().numpy()])
        for width in (1, 5, 1024):
            monkeypatch.setattr(sampling, "PARTIAL_SORT", width)
            probabilities, _ = sampling.filtered(log_probs, Generate.model_validate(filters))
            assert (probabilities / probabilities.sum(-1, keepdim=True)).numpy() == pytest.approx(expected, abs=1e-12)


def test_the_largest_random_number_samples_a_possible_token() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25, 0.0]], dtype=torch.float64).log()
    for uniform, top_p, expected in ((1.0, 1.0, 2), (1 - 2**-53, 0.5, 0), (2**-54, 1.0, 0), (0.6, 1.0, 1)):
        assert sample_ids(log_probs, torch.tensor([uniform]), Generate(top_p=top_p)).tolist() == [expected]


def test_samples_come_most_likely_first_and_depend_on_the_seed() -> None:
    model = tiny(vocabulary=9)
    settings: dict[str, object] = {"strategy": "sample", "temperature": 2.0, "max_tokens": 10}
    (five,), (again,), (other,) = (run(model, [(EOS, 3)], seed, samples=5, **settings) for seed in (1, 1, 2))
    totals = [item.log_prob for item in five]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) > 1
    assert as_pairs(five) == as_pairs(again) != as_pairs(other)
    (three,) = run(model, [(EOS, 3)], 1, samples=3, **settings)
    assert {ids for ids, _ in as_pairs(three)} <= {ids for ids, _ in as_pairs(five)}

"""Samples without replacement, and their order, compared with the list of all sequences."""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from packlm.config import Generate
from packlm.generation.prompt_batch import PromptBatch
from packlm.generation.strategies.without_replacement import sample_without_replacement
from tests.generation.enumeration import EOS, arrays, as_pairs, chain, chi_square_is_usual, enumerate_all, filtered, run, stepper_of, tiny


@dataclass(frozen=True)
class ManyTimes(PromptBatch):
    """The same prompt over and over, each time with random numbers of its own."""

    @property
    def hash_keys(self) -> np.ndarray:
        return np.arange(len(self.prompts)).astype(np.uint64)


@pytest.mark.parametrize("filters", [{"temperature": 3.0}, {"temperature": 2.0, "top_k": 2}, {"temperature": 4.0, "top_p": 0.9}], ids=str)
def test_ordered_samples_are_as_likely_as_they_should_be(filters: dict[str, Any]) -> None:
    """P(first a, then b, then c) = P(a) P(b) / (1 - P(a)) P(c) / (1 - P(a) - P(b)), where P is the distribution of independent samples."""
    model, prompt, draws = tiny(seed=3, vocabulary=3), (EOS, 1), 4000

    def probability(ids: tuple[int, ...]) -> float:
        steps = [filtered(chain(model, prompt + ids[:length])[0].exp().numpy(), **filters)[value] for length, value in enumerate(ids)]
        return float(np.prod(steps))

    p = {ids: probability(ids) for ids in enumerate_all(model, prompt, 2)}
    assert sum(p.values()) == pytest.approx(1)
    expected = {
        (a, b, c): p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
        for a, b, c in permutations((ids for ids, value in p.items() if value > 0), 3)
    }
    generate = Generate.model_validate({"samples": 3, "max_tokens": 2, "replacement": False} | filters)
    batch = ManyTimes(stepper_of(model, False), arrays([prompt] * draws), generate, 1, EOS, None)
    with torch.inference_mode():
        results = sample_without_replacement(batch)
    counts = Counter(tuple(tuple(item.ids.tolist()) for item in generations) for generations in results)
    assert chi_square_is_usual(counts, expected)


def test_as_many_samples_as_there_are_sequences_are_all_of_them() -> None:
    model = tiny(vocabulary=3)
    truth = enumerate_all(model, (EOS, 2), 4)
    (samples,) = run(model, [(EOS, 2)], samples=len(truth) + 7, max_tokens=4, replacement=False, temperature=2.0)
    assert dict(as_pairs(samples)) == pytest.approx(truth, abs=1e-9) and len(samples) == len(truth)
    assert [item.log_prob for item in samples] == sorted((item.log_prob for item in samples), reverse=True)


def test_they_are_different_and_depend_on_seed_and_prompt() -> None:
    model = tiny(vocabulary=9)
    settings: dict[str, Any] = {"samples": 20, "max_tokens": 6, "replacement": False, "temperature": 2.0}
    (one, other), (again, _), (reseeded, _) = (run(model, [(EOS, 3), (EOS, 4)], seed, **settings) for seed in (1, 1, 2))
    assert len({ids for ids, _ in as_pairs(one)}) == 20
    assert as_pairs(one) == as_pairs(again)
    assert as_pairs(reseeded) != as_pairs(one) != as_pairs(other)

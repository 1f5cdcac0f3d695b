"""A model so tiny that all its sequences can be listed, and the list: the truth that decoding is compared with."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from packlm import config
from packlm.config import Generate
from packlm.generation import decoding
from packlm.generation.prompt_batch import Detokenizer, Generation
from packlm.generation.stepper import Stepper
from packlm.model import language_model as models
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from tests.small_models import wild

EOS, VOCABULARY = 0, 4
Sequence = tuple[int, ...]


def tiny(cell: str = "lstm", seed: int = 1, vocabulary: int = VOCABULARY) -> LanguageModel:
    return wild(models.build(config.Model(cell=cell, hidden=5, layers=2), vocabulary, seed).double(), 12.0)


def chain(model: LanguageModel, ids: Sequence, state: State | None = None) -> tuple[torch.Tensor, State]:
    """ln P(next) after ids read one by one."""
    state = state or model.recurrence.zero_state(1)
    for value in ids:
        log_probs, state = model.step(torch.tensor([value]), state)
    return log_probs[0], state


def enumerate_all(
    model: LanguageModel, prompt: Sequence, limit: int, may: Callable[[Sequence], bool] = lambda ids: True,
    stops: Callable[[Sequence], bool] = lambda ids: ids[-1] == EOS,
) -> dict[Sequence, float]:  # fmt: skip
    """ln P of every continuation of at most `limit` tokens: those that end, and those that cannot be extended.

    Args:
        may: whether a continuation is possible, given that it is without its last token.
        stops: whether it ends with its last token.
    """
    sequences: dict[Sequence, float] = {}

    def grow(ids: Sequence, total: float, log_probs: torch.Tensor, state: State) -> None:
        values = [value for value in range(model.vocab_size) if len(ids) < limit and may((*ids, value))]
        if not values:
            sequences[ids] = total
        for value in values:
            longer, sum_ = (*ids, value), total + float(log_probs[value])
            if stops(longer):
                sequences[longer] = sum_
            else:
                grow(longer, sum_, *chain(model, (value,), state))

    grow((), 0.0, *chain(model, prompt))
    return sequences


def run(
    model: LanguageModel, prompts: list[Sequence], seed: int = 1, fresh: bool = False, text: Detokenizer | None = None, **settings: object
) -> list[list[Generation]]:  # fmt: skip
    """The continuations of prompts."""
    return decoding.generate(stepper_of(model, fresh), arrays(prompts), Generate.model_validate(settings), seed, EOS, text)


@cache
def stepper_of(model: LanguageModel, fresh: bool) -> Stepper:
    return Stepper(model, EOS if fresh else None)


def arrays(prompts: list[Sequence]) -> list[np.ndarray]:
    return [np.array(ids, np.int64) for ids in prompts]


def spelled_as(*spellings: str) -> Detokenizer:
    """A tokenizer whose ids add these strings to a text."""
    return Detokenizer([spelling.encode() for spelling in spellings], lambda prompt, ids: "".join(spellings[id] for id in ids))


def filtered(
    probabilities: np.ndarray, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, typical_p: float = 1.0
) -> np.ndarray:  # fmt: skip
    """The distribution that is sampled from, filter by filter."""
    rest = probabilities ** (1 / temperature)
    rest[np.argsort(-rest)[top_k or len(rest) :]] = 0.0
    rest /= rest.sum()
    rest = _smallest_set(rest, -rest, top_p)
    rest = np.where(rest < min_p * rest.max(), 0.0, rest)
    rest /= rest.sum()
    surprisals = -np.log(np.maximum(rest, 1e-300))
    return _smallest_set(rest, np.where(rest > 0, abs(surprisals - (rest * surprisals).sum()), np.inf), typical_p)


def _smallest_set(probabilities: np.ndarray, keys: np.ndarray, mass: float) -> np.ndarray:
    result, total = np.zeros_like(probabilities), 0.0
    for index in np.argsort(keys):
        if total < mass:
            result[index] = probabilities[index]
        total += probabilities[index]
    return result / result.sum()


def chi_square_is_usual(counts: Mapping[Any, int], probabilities: Mapping[Any, float]) -> bool:
    """Whether counts agree with probabilities: nothing impossible is counted, and chi-square is at most 4 deviations above its mean."""
    draws = sum(counts.values())
    common = [key for key, probability in probabilities.items() if probability * draws >= 5]
    statistic = sum((counts.get(key, 0) - probabilities[key] * draws) ** 2 / (probabilities[key] * draws) for key in common)
    possible = all(probabilities.get(key, 0.0) > 0 for key in counts)
    return possible and len(common) > 3 and statistic < len(common) + 4 * (2 * len(common)) ** 0.5


def as_pairs(generations: list[Generation]) -> list[tuple[Sequence, float]]:
    return [(tuple(item.ids.tolist()), item.log_prob) for item in generations]

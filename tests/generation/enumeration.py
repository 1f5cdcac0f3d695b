"""A model so tiny that all its sequences can be listed, and the list: the truth that decoding is held against."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from packlm import config
from packlm.config import Generate
from packlm.generation import decoding
from packlm.generation.stepper import Stepper
from packlm.generation.task import Generation, TextInfo
from packlm.model import language_model as models
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from tests.small_models import wild

EOS, VOCABULARY = 0, 4
Sequence = tuple[int, ...]


def tiny(cell: str = "lstm", seed: int = 1, vocabulary: int = VOCABULARY) -> LanguageModel:
    return wild(models.build(config.Model(cell=cell, hidden=5, layers=2), vocabulary, seed).double(), 12.0)


def chain(model: LanguageModel, ids: Sequence, state: State | None = None) -> tuple[torch.Tensor, State]:
    """log P(next) after ids read one by one, the plainest way."""
    state = state or model.recurrence.zero_state(1)
    for value in ids:
        log_probs, state = model.step(torch.tensor([value]), state)
    return log_probs[0], state


def enumerate_all(
    model: LanguageModel, prompt: Sequence, limit: int, may: Callable[[Sequence], bool] = lambda ids: True,
    stops: Callable[[Sequence], bool] = lambda ids: ids[-1] == EOS,
) -> dict[Sequence, float]:  # fmt: skip
    """log P of every continuation of at most `limit` tokens: those that end, and those that go no further.

    Args:
        may: whether a continuation is possible, given that it is without its last token.
        stops: whether it ends with its last token.
    """
    found: dict[Sequence, float] = {}

    def grow(ids: Sequence, total: float, log_probs: torch.Tensor, state: State) -> None:
        values = [value for value in range(model.vocab_size) if len(ids) < limit and may((*ids, value))]
        if not values:
            found[ids] = total
        for value in values:
            longer, sum_ = (*ids, value), total + float(log_probs[value])
            if stops(longer):
                found[longer] = sum_
            else:
                grow(longer, sum_, *chain(model, (value,), state))

    grow((), 0.0, *chain(model, prompt))
    return found


def run(
    model: LanguageModel, prompts: list[Sequence], seed: int = 1, fresh: bool = False, text: TextInfo | None = None, **settings: object
) -> list[list[Generation]]:  # fmt: skip
    """What decoding makes of prompts."""
    return decoding.generate(stepper_of(model, fresh), arrays(prompts), Generate.model_validate(settings), seed, EOS, text)


@cache
def stepper_of(model: LanguageModel, fresh: bool) -> Stepper:
    return Stepper(model, EOS if fresh else None)


def arrays(prompts: list[Sequence]) -> list[np.ndarray]:
    return [np.array(ids, np.int64) for ids in prompts]


def spelled_as(*spellings: str) -> TextInfo:
    """A tokenizer whose ids add these strings to a text."""
    return TextInfo([spelling.encode() for spelling in spellings], lambda prompt, ids: "".join(spellings[id] for id in ids))


def filtered(probabilities: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, typical_p: float) -> np.ndarray:
    """The distribution that is drawn from, written down filter by filter."""
    left = probabilities ** (1 / temperature)
    left[np.argsort(-left)[top_k or len(left) :]] = 0.0
    left /= left.sum()
    left = _fewest(left, -left, top_p)
    left = np.where(left < min_p * left.max(), 0.0, left)
    left /= left.sum()
    surprisals = -np.log(np.maximum(left, 1e-300))
    return _fewest(left, np.where(left > 0, abs(surprisals - (left * surprisals).sum()), np.inf), typical_p)


def _fewest(probabilities: np.ndarray, keys: np.ndarray, mass: float) -> np.ndarray:
    result, total = np.zeros_like(probabilities), 0.0
    for place in np.argsort(keys):
        if total < mass:
            result[place] = probabilities[place]
        total += probabilities[place]
    return result / result.sum()


def chi_square_is_usual(counts: Mapping[Any, int], chances: Mapping[Any, float]) -> bool:
    """Whether counts are as chances say: everything counted is possible, and chi-square is at most 4 deviations above its mean."""
    draws = sum(counts.values())
    common = [key for key, chance in chances.items() if chance * draws >= 5]
    statistic = sum((counts.get(key, 0) - chances[key] * draws) ** 2 / (chances[key] * draws) for key in common)
    possible = all(chances.get(key, 0.0) > 0 for key in counts)
    return possible and len(common) > 3 and statistic < len(common) + 4 * (2 * len(common)) ** 0.5


def as_pairs(generations: list[Generation]) -> list[tuple[Sequence, float]]:
    return [(tuple(item.ids.tolist()), item.log_prob) for item in generations]

"""Re-ranking n-best lists with a language model: total = score + old_lm_weight * old + lm_weight * log P(text) + word_bonus * words.

All scores are log-probabilities in nats. With a context, log P of a hypothesis is read after the earlier utterances of its recording,
as they turned out. The best of those depend on the weights, and weights are tuned on fixed lists: so while they are tuned, the context is
what the recogniser put first, and only then is every recording gone through in order, utterance by utterance.

Shapes: K hypotheses of a list. Features and weights are those of (lm_weight, word_bonus, old_lm_weight), in this order.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from packlm.config import Rescore
from packlm.scoring.context import Context

from . import tuning, word_errors
from .nbest import Utterance
from .tuning import Candidates
from .word_errors import WordErrorRate

WEIGHTS = ("lm_weight", "word_bonus", "old_lm_weight")
BONUS = 1
"""The weight that may be tuned to less than 0: a bonus for words may have to be a penalty."""

Score = Callable[[Sequence[tuple[Context, str]]], tuple[np.ndarray, np.ndarray]]
"""`context_scores.log_probs` of a model."""


@dataclass(frozen=True)
class Rescored:
    """A list with its new scores."""

    utterance: Utterance
    log_probs: np.ndarray
    """[K] log P of each hypothesis under the new model."""
    unknown: np.ndarray
    """[K] tokens of each that are unknown to it."""

    @cached_property
    def fixed(self) -> np.ndarray:
        """[K] the scores that no weight changes."""
        return np.array([one.score for one in self.utterance.hypotheses])

    @cached_property
    def features(self) -> np.ndarray:
        """[K, 3]."""
        words = [float(len(one.text.split())) for one in self.utterance.hypotheses]
        old = [one.lm_score or 0.0 for one in self.utterance.hypotheses]
        return np.stack([self.log_probs, words, old], 1)

    @cached_property
    def errors(self) -> np.ndarray:
        """[K] word errors of each against the reference, which there must be."""
        assert self.utterance.reference is not None
        reference, texts = self.utterance.reference.split(), [one.text for one in self.utterance.hypotheses]
        known = {text: word_errors.errors(reference, text.split()) for text in set(texts)}
        return np.array([known[text] for text in texts])

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """[K]."""
        return tuning.totals(self.fixed, self.features, weights)

    def order(self, weights: np.ndarray) -> list[int]:
        """The hypotheses, best first; in a tie in the recogniser's order."""
        return np.argsort(-self.totals(weights), kind="stable").tolist()


def rescore(
    utterances: Sequence[Utterance], score: Score, settings: Rescore, tune_on: set[str] | None
) -> tuple[list[Rescored], np.ndarray]:  # fmt: skip
    """Scores all lists and settles the weights.

    Args:
        utterances: those of a recording in their order.
        tune_on: ids of those with which weights are tuned; None: all that have a reference.

    Returns (lists in the order of the utterances, [3] weights).
    """
    referred = settings.context_from == "reference"
    given = [getattr(settings, name) for name in WEIGHTS]
    weights = np.array([0.0 if value == "tune" else value for value in given])
    tuned = [index for index, value in enumerate(given) if value == "tune"]
    scored = None
    if tuned or referred or not settings.context:
        read = [one.reference if referred else one.hypotheses[0].text for one in utterances]
        scored = _scored(utterances, _contexts(utterances, read, settings.context), score)
    if tuned:
        assert scored is not None
        chosen = [one for one in judged(scored) if tune_on is None or one.utterance.id in tune_on]
        weights = tuning.tune([Candidates(one.fixed, one.features, one.errors) for one in chosen], weights, tuned, [BONUS])
    if scored is None or (settings.context and not referred):
        scored = _in_turn(utterances, settings.context, score, weights)
    return scored, weights


def judged(scored: Sequence[Rescored]) -> list[Rescored]:
    """Those with a reference."""
    return [one for one in scored if one.utterance.reference is not None]


def rates(scored: Sequence[Rescored], weights: np.ndarray) -> dict[str, WordErrorRate]:
    """Word error rates of lists with references: of what the recogniser put first, of the new order, of the best that is there."""
    words = sum(len((one.utterance.reference or "").split()) for one in scored)
    before = sum(int(one.errors[0]) for one in scored)
    after = sum(int(one.errors[one.order(weights)[0]]) for one in scored)
    oracle = sum(int(one.errors.min()) for one in scored)
    return {"before": WordErrorRate(before, words), "after": WordErrorRate(after, words), "oracle": WordErrorRate(oracle, words)}


def _contexts(utterances: Sequence[Utterance], read: Sequence[str | None], count: int) -> list[Context]:
    """What is read before each utterance: the last `count` texts of its recording, those that are None left out."""
    earlier: dict[str, list[str]] = defaultdict(list)
    found: list[Context] = []
    for one, text in zip(utterances, read, strict=True):
        if one.recording is None or not count:
            found.append(())
            continue
        found.append(tuple(earlier[one.recording][-count:]))
        if text is not None:
            earlier[one.recording].append(text)
    return found


def _scored(utterances: Sequence[Utterance], contexts: Sequence[Context], score: Score) -> list[Rescored]:
    asked = [(context, one.text) for utterance, context in zip(utterances, contexts, strict=True) for one in utterance.hypotheses]
    log_probs, unknown = score(asked)
    cuts = np.cumsum([len(one.hypotheses) for one in utterances])[:-1]
    parts = zip(utterances, np.split(log_probs, cuts), np.split(unknown, cuts), strict=True) if utterances else ()
    return [Rescored(utterance, own, own_unknown) for utterance, own, own_unknown in parts]


def _in_turn(utterances: Sequence[Utterance], count: int, score: Score, weights: np.ndarray) -> list[Rescored]:
    """The utterances of each recording one after the other, those at the same place of all recordings together."""
    rounds: dict[int, list[int]] = defaultdict(list)
    lengths: dict[str, int] = defaultdict(int)
    for index, one in enumerate(utterances):
        rounds[lengths[one.recording] if one.recording is not None else 0].append(index)
        if one.recording is not None:
            lengths[one.recording] += 1
    best: dict[str, list[str]] = defaultdict(list)
    found: list[Rescored | None] = [None] * len(utterances)
    for place in sorted(rounds):
        now = [utterances[index] for index in rounds[place]]
        contexts = [tuple(best[one.recording][-count:]) if one.recording is not None else () for one in now]
        for index, own in zip(rounds[place], _scored(now, contexts, score), strict=True):
            found[index] = own
            if own.utterance.recording is not None:
                best[own.utterance.recording].append(own.utterance.hypotheses[own.order(weights)[0]].text)
    return [one for one in found if one is not None]

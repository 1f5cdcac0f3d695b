"""Re-ranks n-best lists with a language model: total = score + old_lm_weight * lm_score + lm_weight * log P(text) + word_bonus * words.

All scores are log-probabilities in nats. With a context, a hypothesis is scored after the best hypotheses of the earlier utterances of its
recording. These depend on the weights, and weights are tuned on fixed scores: so for tuning the context is the recognizer's first
hypotheses, and with the tuned weights each recording is scored again, utterance by utterance.

Shapes: K hypotheses of a list. Features and weights are those of (lm_weight, word_bonus, old_lm_weight), in this order.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from packlm.base.errors import PacklmError
from packlm.config import Rescore
from packlm.scoring.context import Context

from . import tuning, word_errors
from .nbest import Utterance
from .tuning import Candidates
from .word_errors import WordErrorRate

WEIGHTS = ("lm_weight", "word_bonus", "old_lm_weight")
BONUS = 1
"""Index of the weight that may be tuned below 0: the best word bonus may be a penalty."""

Score = Callable[[Sequence[tuple[Context, str]]], tuple[np.ndarray, np.ndarray]]
"""`context_scores.log_probs` of a model."""


@dataclass(frozen=True)
class RescoredList:
    """An n-best list with the new model's scores."""

    utterance: Utterance
    log_probs: np.ndarray
    """[K] log P of each hypothesis under the new model."""
    unknown: np.ndarray
    """[K] number of unknown tokens of each."""

    @cached_property
    def fixed(self) -> np.ndarray:
        """[K] the scores without a weight."""
        return np.array([one.score for one in self.utterance.hypotheses])

    @cached_property
    def features(self) -> np.ndarray:
        """[K, 3] the scores with a weight."""
        words = [float(len(one.text.split())) for one in self.utterance.hypotheses]
        lm_scores = [one.lm_score or 0.0 for one in self.utterance.hypotheses]
        return np.stack([self.log_probs, words, lm_scores], 1)

    @cached_property
    def errors(self) -> np.ndarray:
        """[K] word errors of each; the utterance must have a reference."""
        assert self.utterance.reference is not None
        reference, texts = self.utterance.reference.split(), [one.text for one in self.utterance.hypotheses]
        errors = {text: word_errors.errors(reference, text.split()) for text in set(texts)}
        return np.array([errors[text] for text in texts])

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """[K] the weighted scores."""
        totals = tuning.totals(self.fixed, self.features, weights)
        if not np.isfinite(totals).all():
            raise PacklmError(f"{self.utterance.id}: a total of {totals[~np.isfinite(totals)][0]}: lower the weights ({weights.tolist()})")
        return totals

    def order(self, weights: np.ndarray) -> list[int]:
        """The indices of the hypotheses, best first; ties in the recognizer's order."""
        return np.argsort(-self.totals(weights), kind="stable").tolist()


def rescore(
    utterances: Sequence[Utterance], score: Score, settings: Rescore, tune_on: set[str] | None
) -> tuple[list[RescoredList], np.ndarray]:  # fmt: skip
    """Scores all lists and tunes the weights.

    Args:
        utterances: those of a recording are in their order.
        tune_on: ids of the utterances that weights are tuned on; None: all with a reference.

    Returns (lists in the order of the utterances, [3] weights).
    """
    from_references = settings.context_from == "reference"
    values = [getattr(settings, name) for name in WEIGHTS]
    weights = np.array([0.0 if value == "tune" else value for value in values])
    tuned = [index for index, value in enumerate(values) if value == "tune"]
    rescored = None
    if tuned or from_references or not settings.context:
        texts = [utterance.reference if from_references else utterance.hypotheses[0].text for utterance in utterances]
        rescored = _score_lists(utterances, _contexts(utterances, texts, settings.context), score)
    if tuned:
        assert rescored is not None
        lists = [one for one in with_reference(rescored) if tune_on is None or one.utterance.id in tune_on]
        weights = tuning.tune([Candidates(one.fixed, one.features, one.errors) for one in lists], weights, tuned, [BONUS])
    if rescored is None or (settings.context and not from_references):
        rescored = _score_in_turn(utterances, settings.context, score, weights)
    return rescored, weights


def with_reference(rescored: Sequence[RescoredList]) -> list[RescoredList]:
    """The lists whose utterance has a reference."""
    return [one for one in rescored if one.utterance.reference is not None]


def rates(rescored: Sequence[RescoredList], weights: np.ndarray) -> dict[str, WordErrorRate]:
    """Word error rates of lists with references: of the recognizer's first hypotheses, of the new first ones, and of the best in the lists
    (oracle)."""
    words = sum(len((one.utterance.reference or "").split()) for one in rescored)
    before = sum(int(one.errors[0]) for one in rescored)
    after = sum(int(one.errors[one.order(weights)[0]]) for one in rescored)
    oracle = sum(int(one.errors.min()) for one in rescored)
    return {"before": WordErrorRate(before, words), "after": WordErrorRate(after, words), "oracle": WordErrorRate(oracle, words)}


def _contexts(utterances: Sequence[Utterance], texts: Sequence[str | None], count: int) -> list[Context]:
    """The context of each utterance: the last `count` texts before it in its recording, without those that are None."""
    earlier: dict[str, list[str]] = defaultdict(list)
    contexts: list[Context] = []
    for utterance, text in zip(utterances, texts, strict=True):
        if utterance.recording is None or not count:
            contexts.append(())
            continue
        contexts.append(tuple(earlier[utterance.recording][-count:]))
        if text is not None:
            earlier[utterance.recording].append(text)
    return contexts


def _score_lists(utterances: Sequence[Utterance], contexts: Sequence[Context], score: Score) -> list[RescoredList]:
    texts = [(context, one.text) for utterance, context in zip(utterances, contexts, strict=True) for one in utterance.hypotheses]
    log_probs, unknown = score(texts)
    cuts = np.cumsum([len(utterance.hypotheses) for utterance in utterances])[:-1]
    parts = zip(utterances, np.split(log_probs, cuts), np.split(unknown, cuts), strict=True) if utterances else ()
    return [RescoredList(*part) for part in parts]


def _score_in_turn(utterances: Sequence[Utterance], count: int, score: Score, weights: np.ndarray) -> list[RescoredList]:
    """Scores the utterances of each recording one after the other, in rounds: the n-th of all recordings together."""
    rounds: dict[int, list[int]] = defaultdict(list)
    lengths: dict[str, int] = defaultdict(int)
    for index, utterance in enumerate(utterances):
        rounds[lengths[utterance.recording] if utterance.recording is not None else 0].append(index)
        if utterance.recording is not None:
            lengths[utterance.recording] += 1
    best: dict[str, list[str]] = defaultdict(list)
    rescored: dict[int, RescoredList] = {}
    for _, indices in sorted(rounds.items()):
        batch = [utterances[index] for index in indices]
        contexts = [tuple(best[one.recording][-count:]) if one.recording is not None else () for one in batch]
        for index, one in zip(indices, _score_lists(batch, contexts, score), strict=True):
            rescored[index] = one
            if one.utterance.recording is not None:
                best[one.utterance.recording].append(one.utterance.hypotheses[one.order(weights)[0]].text)
    return [rescored[index] for index in range(len(utterances))]

"""Baselines without a neural model, on the same tokens and contexts: uniform, unigram and n-gram distributions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from packlm.dataset.views import Sentences, Stream
from packlm.interpolation.kneser_ney import MAX_TOKENS, kneser_ney
from packlm.model.finite import perplexity

ORDER = 5
WEIGHTS = tuple(step / 20 for step in range(1, 20))
"""Weights that an interpolation chooses from."""


@dataclass(frozen=True)
class Baselines:
    """Losses of the baselines."""

    training_tokens: int
    """Training tokens that n-grams were counted in."""
    context: str
    """What precedes a prediction, as for the model: its sentence, its document, or its stream."""
    losses: dict[str, np.ndarray]
    """For `uniform`, `unigram` and `kneser_ney_5` the loss of each token, [N] in nats."""

    def summary(self) -> dict[str, Any]:
        """The entry `baselines` of a report."""
        means = {name: float(losses.mean()) for name, losses in self.losses.items()}
        numbers = {name: {"loss_per_token": loss, "perplexity": perplexity(loss)} for name, loss in means.items()}
        return {"training_tokens": self.training_tokens, "context": self.context, **numbers}


def baselines(training: tuple[Sentences, Stream], evaluated: tuple[Sentences, Stream], vocab_size: int, context: str) -> Baselines:
    """Scores every token of `evaluated`; both splits in both views.

    uniform: 1 / V. unigram: (count + 1) / (tokens + V) in the training split. kneser_ney_5: `kneser_ney` of order 5, whose n-grams
    begin where the context does: with sentences, documents, or streams.
    """
    ends = np.cumsum(training[0].lengths, dtype=np.int64)
    num_sentences = max(1, int(np.searchsorted(ends, MAX_TOKENS, side="right")))
    training_ids, ids = training[0].read(np.arange(num_sentences))[1], evaluated[0].ids()
    counts = np.bincount(training_ids, minlength=vocab_size) + 1
    ngrams = kneser_ney(training_ids, context_ends(*training, context, len(training_ids)), vocab_size, ORDER)
    losses = {
        "uniform": np.full(len(ids), np.log(vocab_size)),
        "unigram": -np.log(counts[ids] / counts.sum()),
        f"kneser_ney_{ORDER}": -ngrams.log_probs(ids, context_ends(*evaluated, context, len(ids))),
    }
    return Baselines(len(training_ids), context, losses)


@dataclass(frozen=True)
class Interpolation:
    """A mixture of the distributions of two models, lambda P + (1 - lambda) Q."""

    loss: float
    """Mean of -ln of the mixture, in nats per token."""
    weight: float
    """lambda, the mean of both halves'."""


def interpolate(losses: np.ndarray, others: np.ndarray) -> Interpolation:
    """Interpolates two models (Jelinek and Mercer 1980) from their losses [N] of the same tokens.

    Each half of the text is interpolated with the weight, of `WEIGHTS`, that is best for the other half.
    """
    halves = [slice(0, len(losses) // 2), slice(len(losses) // 2, len(losses))]
    nll = np.array([[_mixture_nll(losses[half], others[half], weight) for weight in WEIGHTS] for half in halves])
    best = nll.argmin(1)
    return Interpolation(float(nll[0, best[1]] + nll[1, best[0]]) / len(losses), float(np.mean([WEIGHTS[index] for index in best])))


def _mixture_nll(losses: np.ndarray, others: np.ndarray, weight: float) -> float:
    return float(-np.logaddexp(math.log(weight) - losses, math.log1p(-weight) - others).sum())


def context_ends(sentences: Sentences, stream: Stream, context: str, num_tokens: int) -> np.ndarray:
    """Where contexts end in the first `num_tokens` targets of a split: after each sentence, each document, or all of it (streams)."""
    ends = np.cumsum(sentences.lengths, dtype=np.int64) if context == "sentences" else stream.opens[1:]
    return np.append(ends[ends < num_tokens] if context != "streams" else [], num_tokens).astype(np.int64)

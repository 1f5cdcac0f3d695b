"""Baselines without a neural model, on the same tokens: uniform, unigram and n-gram distributions."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from packlm.dataset.views import Sentences
from packlm.evaluation.ngrams import KneserNey
from packlm.model.finite import perplexity

ORDER = 5
MAX_TOKENS = 20_000_000
"""N-grams are counted in the first training tokens up to this number, at some 200 bytes of memory each. Larger splits get no baselines."""


@dataclass(frozen=True)
class Baselines:
    """Losses of the baselines."""

    training_tokens: int
    """Training tokens that n-grams were counted in."""
    losses: dict[str, np.ndarray]
    """For `uniform`, `unigram` and `kneser_ney_5` the loss of each token, [N] in nats."""

    def summary(self) -> dict[str, Any]:
        """The entry `baselines` of a report."""
        means = {name: float(losses.mean()) for name, losses in self.losses.items()}
        numbers = {name: {"loss_per_token": loss, "perplexity": perplexity(loss)} for name, loss in means.items()}
        return {"training_tokens": self.training_tokens, "context": "sentences", **numbers}


def baselines(training: Sentences, evaluated: Sentences, vocab_size: int) -> Baselines:
    """Scores every token of `evaluated`, with its own sentence as context.

    uniform: 1 / V. unigram: (count + 1) / (tokens + V) in the training split. kneser_ney_5: `ngrams.KneserNey` of order 5.
    """
    ends = np.cumsum(training.lengths, dtype=np.int64)
    num_sentences = max(1, int(np.searchsorted(ends, MAX_TOKENS, side="right")))
    training_ids, ids = training.read(np.arange(num_sentences))[1], evaluated.read(np.arange(len(evaluated)))[1]
    counts = np.bincount(training_ids, minlength=vocab_size) + 1
    ngrams = KneserNey(training_ids, ends[:num_sentences], vocab_size, ORDER)
    losses = {
        "uniform": np.full(len(ids), np.log(vocab_size)),
        "unigram": -np.log(counts[ids] / counts.sum()),
        f"kneser_ney_{ORDER}": -ngrams.log_probs(ids, np.cumsum(evaluated.lengths, dtype=np.int64)),
    }
    return Baselines(len(training_ids), losses)

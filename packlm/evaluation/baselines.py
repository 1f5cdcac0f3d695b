"""What predicts without a model: the same words as a chance, as frequencies, and as n-grams, so that a report says what the model buys."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from packlm.dataset.views import Sentences
from packlm.evaluation.ngrams import KneserNey
from packlm.evaluation.reports import perplexity

ORDER = 5
MAX_TOKENS = 20_000_000
"""Most training tokens that n-grams are counted in, the first ones: they take some 200 bytes of memory each. Of larger splits than this
nothing is measured without a model."""


@dataclass(frozen=True)
class Baselines:
    """What is known without a model."""

    training_tokens: int
    """How many training tokens the n-grams were counted in."""
    losses: dict[str, np.ndarray]
    """Loss of each measured token, [N] nats, by each of `uniform`, `unigram`, `kneser_ney_5`."""

    def summary(self) -> dict[str, Any]:
        """For a report."""
        means = {name: float(losses.mean()) for name, losses in self.losses.items()}
        found = {name: {"loss_per_token": loss, "perplexity": perplexity(loss)} for name, loss in means.items()}
        return {"training_tokens": self.training_tokens, "context": "sentences", **found}


def baselines(training: Sentences, measured: Sentences, vocab_size: int) -> Baselines:
    """Measures the sentences `measured`, every token once, each with its own sentence for context.

    uniform: every id alike. unigram: (count + 1) / (tokens + V) in the training split. kneser_ney_5: `ngrams.KneserNey`, of order 5.
    """
    ends = np.cumsum(training.lengths, dtype=np.int64)
    used = max(1, int(np.searchsorted(ends, MAX_TOKENS, side="right")))
    known, (ids, lengths) = training.read(np.arange(used))[1], (measured.read(np.arange(len(measured)))[1], measured.lengths)
    seen = np.bincount(known, minlength=vocab_size) + 1
    ngrams = KneserNey(known, ends[:used], vocab_size, ORDER)
    losses = {
        "uniform": np.full(len(ids), np.log(vocab_size)),
        "unigram": -np.log(seen[ids] / seen.sum()),
        f"kneser_ney_{ORDER}": -ngrams.log_probs(ids, np.cumsum(lengths, dtype=np.int64)),
    }
    return Baselines(len(known), losses)

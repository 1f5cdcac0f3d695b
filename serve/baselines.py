"""What predicts without a model: the same words as a chance, as frequencies, and as n-grams, so that a report says what the model buys."""

from typing import Any

import numpy as np

from serve.ngrams import KneserNey
from serve.reports import perplexity
from train.views import Sentences

ORDER = 5
TOKENS = 20_000_000
"""Most training tokens that n-grams are counted in, the first ones: they take some 200 bytes of memory each."""


def baselines(training: Sentences, measured: Sentences, vocab_size: int) -> dict[str, Any]:
    """Loss per token (nats) and perplexity of the sentences `measured`, every token once, each with its own sentence for context.

    uniform: every id alike. unigram: (count + 1) / (tokens + V) in the training split. kneser_ney_5: `ngrams.KneserNey`, of order 5.
    """
    ends = np.cumsum(training.lengths, dtype=np.int64)
    used = max(1, int(np.searchsorted(ends, TOKENS, side="right")))
    known, (ids, lengths) = training.read(np.arange(used))[1], (measured.read(np.arange(len(measured)))[1], measured.lengths)
    counts = np.bincount(known, minlength=vocab_size) + 1
    ngrams = KneserNey(known, ends[:used], vocab_size, ORDER)
    losses = {
        "uniform": float(np.log(vocab_size)),
        "unigram": -float(np.log(counts[ids] / counts.sum()).mean()),
        f"kneser_ney_{ORDER}": -float(ngrams.log_probs(ids, np.cumsum(lengths, dtype=np.int64)).mean()),
    }
    found = {name: {"loss_per_token": loss, "perplexity": perplexity(loss)} for name, loss in losses.items()}
    return {"training_tokens": len(known), "context": "sentences", **found}

"""Interpolated modified Kneser-Ney n-grams over ids.

Kneser and Ney (1995), as modified by Chen and Goodman (1998, section 3 and appendix B). For a context c of n - 1 words, and c' without its
first word:

    P(w | c)  =  max(count(c w) - D(count(c w)), 0) / sum over v of count(c v)  +  backoff(c) P(w | c')

with discounts D1, D2, D3+ for each order, and backoff(c) such that the probabilities sum to 1. For lower orders count(c w) is the number
of distinct words before c w. Below unigrams is the uniform distribution. Sentences are counted one by one: the first word follows a start
symbol, which is never predicted and has nothing before it, so n-grams that begin with it keep their own counts.

Shapes: S sentences, N ids of all of them end to end, V vocabulary, G different n-grams.
"""

from pathlib import Path

import numpy as np

from packlm.base.errors import RequestError
from packlm.dataset import Manifest
from packlm.dataset.views import Sentences
from packlm.interpolation.backoff import Array, BackoffModel, NGrams, padded

MAX_TOKENS = 20_000_000
"""N-grams are counted in at most so many training tokens, at some 200 bytes of memory each."""


def kneser_ney(ids: Array, ends: Array, vocab_size: int, order: int = 5) -> BackoffModel:
    """Counts the n-grams of sentences; every one that occurs is listed in the result.

    Args:
        ids: [N] of sentences end to end, each with its `<eos>`.
        ends: [S] index in `ids` after each sentence.
        vocab_size: V; ids that never occur get the probability that is backed off to the uniform distribution.
    """
    words, positions = padded(ids, ends, vocab_size)
    base = vocab_size + 1
    keys, counts, suffixes = [np.arange(base)], [np.bincount(words, minlength=base)], [np.zeros(base, np.int64)]
    numbers = words  # of the n-gram of the present length that ends at each position; a word is the number of its unigram
    for length in range(2, order + 1):
        last_words = np.flatnonzero(positions >= length - 1)
        keys_, firsts, inverse, counts_ = np.unique(
            numbers[last_words - 1] * base + words[last_words], return_index=True, return_inverse=True, return_counts=True
        )
        keys.append(keys_)
        counts.append(counts_)
        suffixes.append(numbers[last_words[firsts]])  # of each n-gram without its first word
        numbers = np.full(len(words), -1)
        numbers[last_words] = inverse
    for length in range(1, order):
        preceding = np.bincount(suffixes[length], minlength=len(counts[length - 1]))
        counts[length - 1] = np.where(preceding > 0, preceding, counts[length - 1])
    counts[0][vocab_size] = 0  # the start symbol is not predicted
    orders: list[NGrams] = []
    shorter, all_backoffs = np.array([1 / vocab_size]), []
    for keys_, counts_, suffixes_ in zip(keys, counts, suffixes, strict=True):
        contexts = np.zeros(base, np.int64) if not orders else keys_ // base
        discounts, num_contexts = _discounts(counts_), len(shorter)
        by_count = np.minimum(counts_, 3)
        totals = np.bincount(contexts, counts_, num_contexts)
        followed = totals > 0
        backoffs = np.where(followed, np.bincount(contexts, discounts[by_count], num_contexts) / np.where(followed, totals, 1), 1.0)
        discounted = np.maximum(counts_ - discounts[by_count], 0) / totals[contexts]
        shorter = discounted + backoffs[contexts] * shorter[suffixes_]
        all_backoffs.append(backoffs)
        orders.append(NGrams(keys_, shorter, np.ones(len(keys_))))
    orders[0].probabilities[vocab_size] = 0
    for ngrams, of_contexts in zip(orders, all_backoffs[1:], strict=False):
        ngrams.backoffs[:] = of_contexts
    return BackoffModel(orders, vocab_size)


def of_training_split(folder: Path, manifest: Manifest, vocab_size: int, order: int) -> BackoffModel:
    """The n-grams of the sentences of a dataset's training split.

    Raises:
        RequestError: there is no such split, or it is too large for memory.
    """
    manifest.split("train")
    training = Sentences.open(folder, manifest, "train")
    if training.tokens > MAX_TOKENS:
        raise RequestError(
            f"{folder}: {training.tokens:,} training tokens, and n-grams are counted in at most {MAX_TOKENS:,}: count them with another "
            "program, such as lmplz of KenLM, and use its ARPA file"
        )
    return kneser_ney(training.ids(), np.cumsum(training.lengths), vocab_size, order)


def _discounts(counts: Array) -> Array:
    """[0, D1, D2, D3+] from the number of n-grams with counts of 1 to 4 (Chen and Goodman 1998, equation 17).

    In small texts one of these numbers may be 0, or a discount not positive, which would leave unseen n-grams no probability: then
    0.5, 1 and 1.5.
    """
    default = np.array([0, 0.5, 1.0, 1.5])
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return default
    y = n1 / (n1 + 2 * n2)
    discounts = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return discounts if discounts[1:].min() > 0 else default

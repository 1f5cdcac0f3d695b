"""Interpolated modified Kneser-Ney n-grams over ids, a baseline for neural models.

Kneser and Ney (1995), as modified by Chen and Goodman (1998, section 3 and appendix B). For a context c of n - 1 words, and c' without its
first word:

    P(w | c)  =  max(count(c w) - D(count(c w)), 0) / sum over v of count(c v)  +  backoff(c) P(w | c')

with discounts D1, D2, D3+ for each order, and backoff(c) such that the probabilities sum to 1. For lower orders count(c w) is the number
of distinct words before c w. Below unigrams is the uniform distribution. Sentences are counted one by one: the first word follows a start
symbol, which is never predicted and has nothing before it, so n-grams that begin with it keep their own counts.

Shapes: S sentences, N ids of all of them end to end, P positions: the ids with a start symbol before each sentence, G different n-grams.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length."""

    keys: Array
    """[G] int64, ascending: the number of the first n - 1 words among the shorter n-grams, times (V + 1), plus the last word."""
    counts: Array
    """[G] occurrences; for lower orders, number of distinct preceding words."""
    totals: Array
    """Sum of the counts after each context (an n-gram one shorter)."""
    backoff: Array
    """Probability that each context leaves to the shorter one."""
    discounts: Array
    """[4] D of a count of 0, 1, 2, 3 and more."""


class KneserNey:
    """P(word | up to order - 1 words before it in its sentence)."""

    def __init__(self, ids: Array, ends: Array, vocab_size: int, order: int = 5):
        """
        Args:
            ids: [N] of sentences end to end, each with its `<eos>`.
            ends: [S] index in `ids` after each sentence.
            vocab_size: V; ids that never occur get the probability that is backed off to the uniform distribution.
        """
        self.order, self.vocab_size = order, vocab_size
        self._base = vocab_size + 1
        words, positions = self._padded(ids, ends)
        numbers, occurrences = np.zeros(len(words), np.int64), []
        keys_of, suffixes = [], []
        for length in range(1, order + 1):
            last_words = np.flatnonzero(positions >= length - 1)
            # `numbers` are still those of the n-grams one shorter: of the one that ends just before, and of the one that ends here.
            contexts = numbers[last_words - 1] if length > 1 else numbers[last_words]
            keys, firsts, inverse, counts = np.unique(
                contexts * self._base + words[last_words], return_index=True, return_inverse=True, return_counts=True
            )
            suffixes.append(numbers[last_words[firsts]])
            numbers = np.full(len(words), -1)
            numbers[last_words] = inverse
            keys_of.append(keys)
            occurrences.append(counts)
        self._orders = []
        for length in range(1, order + 1):
            counts = occurrences[length - 1]
            if length < order:
                preceding = np.bincount(suffixes[length], minlength=len(counts))
                counts = np.where(preceding > 0, preceding, counts)
            if length == 1:
                counts = np.where(keys_of[0] == vocab_size, 0, counts)  # the start symbol is not predicted
            num_contexts = len(keys_of[length - 2]) if length > 1 else 1
            self._orders.append(_order(keys_of[length - 1], counts, keys_of[length - 1] // self._base, num_contexts))

    def log_probs(self, ids: Array, ends: Array) -> Array:
        """[N] ln P of each id given those before it in its sentence."""
        words, positions = self._padded(ids, ends)
        probabilities = np.full(len(words), 1 / self.vocab_size)
        contexts = np.zeros(len(words), np.int64)  # number of the n-gram before each position, at first the empty one; -1: never seen
        for length, order in enumerate(self._orders, 1):
            seen = np.flatnonzero((contexts >= 0) & (positions >= max(1, length - 1)))
            seen = seen[order.totals[contexts[seen]] > 0]
            context = contexts[seen]
            number = _lookup(order.keys, context * self._base + words[seen])
            counts = np.where(number >= 0, order.counts[number], 0)
            discounted = np.maximum(counts - order.discounts[np.minimum(counts, 3)], 0)
            probabilities[seen] = discounted / order.totals[context] + order.backoff[context] * probabilities[seen]
            # The context one longer: the n-gram of this length that ends just before the position.
            ending = np.full(len(words), -1)
            long_enough = np.flatnonzero(positions >= length - 1)
            start = contexts[long_enough]
            keys = np.maximum(start, 0) * self._base + words[long_enough]
            ending[long_enough] = np.where(start >= 0, _lookup(order.keys, keys), -1)
            contexts = np.concatenate([[-1], ending[:-1]])
        return np.log(probabilities[positions > 0])

    def _padded(self, ids: Array, ends: Array) -> tuple[Array, Array]:
        """The words [P] with the start symbol V before each sentence, and their positions in their sentences, 0 for the start symbol."""
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        words = np.insert(ids.astype(np.int64), starts, self.vocab_size)
        lengths = np.diff(ends, prepend=0) + 1
        return words, np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _order(keys: Array, counts: Array, contexts: Array, num_contexts: int) -> _Order:
    discounts = _discounts(counts)
    totals = np.bincount(contexts, counts, num_contexts)
    discounted = np.bincount(contexts, discounts[np.minimum(counts, 3)], num_contexts)
    return _Order(keys, counts, totals, discounted / np.maximum(totals, 1), discounts)


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


def _lookup(keys: Array, queries: Array) -> Array:
    """The index of each query in ascending `keys`; -1 if it is not there."""
    if not len(keys):  # no sentence is that long
        return np.full(len(queries), -1)
    indices = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[indices] == queries, indices, -1)

"""Interpolated modified Kneser-Ney n-grams over ids: what counting alone predicts, to hold a model against.

Kneser and Ney 1995, in the form of Chen and Goodman 1998 (section 3 and appendix B): discounts D1, D2, D3+ by order, lower orders from the
number of distinct words that precede. Sentences are counted one by one: what precedes the first word is a start symbol, which is never
predicted and before which there is nothing, so n-grams that begin with it keep their own counts.

Shapes: S sentences, N ids of all of them end to end, P positions: the ids with a start symbol before each sentence, G different n-grams.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length."""

    keys: Array
    """[G] int64, ascending: the number of its first n - 1 words among the shorter n-grams, times (V + 1), plus its last word."""
    counts: Array
    """[G] how often it occurred; for lower orders, how many different words preceded it."""
    totals: Array
    """Sum of the counts after each context (an n-gram one shorter)."""
    left: Array
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
            vocab_size: V; ids that never occurred share what is left with all others.
        """
        self.order, self.vocab_size = order, vocab_size
        self._base = vocab_size + 1
        words, places = self._padded(ids, ends)
        numbers, raw = np.zeros(len(words), np.int64), []
        keys_of, suffixes = [], []
        for length in range(1, order + 1):
            there = np.flatnonzero(places >= length - 1)
            # `numbers` are still those of the n-grams one shorter: of the one that ends just before, and of the one that ends here.
            before = numbers[there - 1] if length > 1 else numbers[there]
            keys, firsts, inverse, counts = np.unique(
                before * self._base + words[there], return_index=True, return_inverse=True, return_counts=True
            )
            suffixes.append(numbers[there[firsts]])
            numbers = np.full(len(words), -1)
            numbers[there] = inverse
            keys_of.append(keys)
            raw.append(counts)
        self._orders = []
        for length in range(1, order + 1):
            counts = raw[length - 1]
            if length < order:
                preceded = np.bincount(suffixes[length], minlength=len(counts))
                counts = np.where(preceded > 0, preceded, counts)
            if length == 1:
                counts = np.where(keys_of[0] == vocab_size, 0, counts)  # the start symbol is not predicted
            contexts = len(keys_of[length - 2]) if length > 1 else 1
            self._orders.append(_order(keys_of[length - 1], counts, keys_of[length - 1] // self._base, contexts))

    def log_probs(self, ids: Array, ends: Array) -> Array:
        """[N] ln P of each id after those before it in its sentence."""
        words, places = self._padded(ids, ends)
        probability = np.full(len(words), 1 / self.vocab_size)
        context = np.zeros(len(words), np.int64)  # of the words before each position, so far none
        for length, order in enumerate(self._orders, 1):
            known = np.flatnonzero((context >= 0) & (places >= max(1, length - 1)))
            known = known[order.totals[context[known]] > 0]
            mine = context[known]
            number = _found(order.keys, mine * self._base + words[known])
            counts = np.where(number >= 0, order.counts[number], 0)
            discounted = np.maximum(counts - order.discounts[np.minimum(counts, 3)], 0)
            probability[known] = discounted / order.totals[mine] + order.left[mine] * probability[known]
            # The context one longer: the n-gram of this length that ends just before the position.
            ending = np.full(len(words), -1)
            here = np.flatnonzero(places >= length - 1)
            start = context[here]
            ending[here] = np.where(start >= 0, _found(order.keys, np.maximum(start, 0) * self._base + words[here]), -1)
            context = np.concatenate([[-1], ending[:-1]])
        return np.log(probability[places > 0])

    def _padded(self, ids: Array, ends: Array) -> tuple[Array, Array]:
        """The words [P] with the start symbol V before each sentence, and their places in their sentences, from 0 for the start."""
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        words = np.insert(ids.astype(np.int64), starts, self.vocab_size)
        lengths = np.diff(ends, prepend=0) + 1
        return words, np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _order(keys: Array, counts: Array, contexts: Array, number: int) -> _Order:
    """An order's n-grams with its discounts and what each of its `number` contexts leaves."""
    discounts = _discounts(counts)
    totals = np.bincount(contexts, counts, number)
    given_up = np.bincount(contexts, discounts[np.minimum(counts, 3)], number)
    return _Order(keys, counts, totals, given_up / np.maximum(totals, 1), discounts)


def _discounts(counts: Array) -> Array:
    """[0, D1, D2, D3+] from how many n-grams have counts of 1 to 4 (Chen and Goodman 1998, equation 17). In small texts one of these may
    not occur, or a discount come out as none, which would leave nothing to what was never seen: there 0.5, 1 and 1.5."""
    usual = np.array([0, 0.5, 1.0, 1.5])
    once, twice, thrice, four = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (once and twice and thrice and four):
        return usual
    y = once / (once + 2 * twice)
    found = np.array([0, 1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four / thrice])
    return found if found[1:].min() > 0 else usual


def _found(keys: Array, wanted: Array) -> Array:
    """Where each of `wanted` stands among ascending `keys`; -1 where it does not."""
    if not len(keys):  # no sentence is so long
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)

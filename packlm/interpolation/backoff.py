"""Backoff n-gram models over ids, as ARPA files describe them (Katz 1987; the format is Doug Paul's):

    P(w | c)  =  listed probability of (c, w), if that n-gram is listed, else  backoff(c) P(w | c without its first word)

where backoff(c) is 1 if c is not listed.

Shapes: P positions, R rows, V vocabulary, n order, G n-grams of one length.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

NOTHING = -1
"""In a context: no word."""
CHUNK = 1 << 20
"""Positions looked up at a time; bounds memory."""


@dataclass(frozen=True)
class NGrams:
    """All listed n-grams of one length."""

    keys: Array
    """[G] int64, ascending: the number of the first n - 1 words among the shorter n-grams, times (V + 1), plus the last word."""
    probabilities: Array
    """[G] P(last word | the words before it); 0 for the start symbol, which is never predicted."""
    backoffs: Array
    """[G] the factor that the n-gram as a context gives to words that are not listed after it."""


class BackoffModel:
    """P(word | up to n - 1 words before it in its sentence)."""

    def __init__(self, orders: list[NGrams], vocab_size: int):
        """`orders`: the n-grams of each length. The unigrams are all ids, then the start symbol, so that a word is its own number."""
        self.orders, self.vocab_size = orders, vocab_size

    @property
    def order(self) -> int:
        return len(self.orders)

    @property
    def start(self) -> int:
        """The start symbol, which stands before every sentence: V."""
        return self.vocab_size

    def log_probs(self, ids: Array, ends: Array) -> Array:
        """[N] ln P of each id given those before it in its sentence; sentences lie end to end, and `ends` is the index after each."""
        words, positions = padded(ids, ends, self.start)
        predicted, probabilities = np.flatnonzero(positions > 0), []
        for chunk in np.split(predicted, range(CHUNK, len(predicted), CHUNK)):
            contexts = np.full((len(chunk), self.order - 1), NOTHING)
            for back in range(1, self.order):
                inside = positions[chunk] >= back
                contexts[inside, -back] = words[chunk[inside] - back]
            probabilities.append(self.probabilities_of(contexts, words[chunk]))
        return np.log(np.concatenate(probabilities))

    def probabilities_of(self, contexts: Array, words: Array) -> Array:
        """[R] P of words [R] after contexts [R, n - 1], oldest word first; `NOTHING` where a context is shorter."""
        probabilities = self.orders[0].probabilities[words].astype(np.float64)
        for shorter, longer, numbers in self._by_length(contexts):
            backed_off = np.flatnonzero(numbers >= 0)
            probabilities[backed_off] *= shorter.backoffs[numbers[backed_off]]
            listed = lookup(longer.keys, self._key(numbers, words))
            rows = np.flatnonzero(listed >= 0)
            probabilities[rows] = longer.probabilities[listed[rows]]
        return probabilities

    def probabilities_after(self, contexts: Array) -> Array:
        """[R, V] P of every id after contexts as in `probabilities_of`."""
        probabilities = np.tile(self.orders[0].probabilities[: self.vocab_size].astype(np.float64), (len(contexts), 1))
        for shorter, longer, numbers in self._by_length(contexts):
            rows = np.flatnonzero(numbers >= 0)
            probabilities[rows] *= shorter.backoffs[numbers[rows], None]
            # The n-grams that a context begins lie side by side.
            firsts = np.searchsorted(longer.keys, self._key(numbers[rows], 0))
            counts = np.searchsorted(longer.keys, self._key(numbers[rows] + 1, 0)) - firsts
            listed = np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
            words = longer.keys[listed] % (self.vocab_size + 1)
            probabilities[np.repeat(rows, counts), words] = longer.probabilities[listed]
        return probabilities

    def _by_length(self, contexts: Array) -> list[tuple[NGrams, NGrams, Array]]:
        """For the last 1, 2, ... words of contexts [R, n - 1]: (n-grams of that length, those one longer, number of each context's; -1)."""
        found = []
        for length in range(1, self.order):
            words = contexts[:, self.order - 1 - length :]
            numbers = words[:, 0]
            for index in range(1, length):
                numbers = lookup(self.orders[index].keys, self._key(numbers, words[:, index]))
            found.append((self.orders[length - 1], self.orders[length], numbers))
        return found

    def _key(self, numbers: Array, words: Array | int) -> Array:
        """The keys of n-grams, from the numbers of their first words and the last word; -1 where there is no such n-gram."""
        return np.where((numbers >= 0) & (np.asarray(words) >= 0), numbers * (self.vocab_size + 1) + words, -1)


def padded(ids: Array, ends: Array, start: int) -> tuple[Array, Array]:
    """Sentences end to end with the start symbol before each, [P], and the positions in their sentences, 0 for the start symbol."""
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    words = np.insert(ids.astype(np.int64), starts, start)
    lengths = np.diff(ends, prepend=0) + 1
    return words, np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def lookup(keys: Array, queries: Array) -> Array:
    """The index of each query in ascending `keys`; -1 if it is not there."""
    if not len(keys):  # no sentence is that long
        return np.full(len(queries), -1)
    indices = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[indices] == queries, indices, -1)

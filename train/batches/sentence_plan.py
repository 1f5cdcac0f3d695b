"""Batches of sentences of like length."""

import itertools
import logging

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset.views import Array, Sentences

from .plan import Stateless

log = logging.getLogger("packlm")


class SentencePlan(Stateless):
    """Sentences of like length together, about `tokens` in a global batch, in an order drawn anew each epoch.

    A global batch is dealt out like cards, longest first, so its parts are equal in tokens to one sentence and their longest sentences are
    the longest of the batch: no part waits for another. Resident memory: 4 bytes a sentence for its place in the epoch's order, besides
    the lengths.
    """

    unit = "sentences"

    def __init__(self, sentences: Sentences, tokens: int, seed: int, on_overlong: str = "error"):
        """`on_overlong`: what to do with sentences of more than `tokens`: error, or cut (pieces of at most `tokens`, each from zero)."""
        self.sentences, self.seed = sentences, seed
        self.lengths = sentences.lengths
        self._rest = np.zeros((2, 0), np.int64)
        longest = int(sentences.lengths.max())
        if longest > tokens:
            if on_overlong == "error":
                raise RequestError(
                    f"train.global_batch_tokens: {tokens:,} is less than the longest sentence, {longest:,} tokens; "
                    'raise it, cut such sentences with train.on_overlong = "cut", or split them in preprocessing with corpus.max_tokens'
                )
            self._cut(tokens)
        self._counts = _lengths_counted(self.lengths)
        self._order = np.zeros(0, np.uint32)
        self._bounds = _bounds(self._counts, tokens)
        self._epoch = -1

    def _cut(self, tokens: int) -> None:
        """Sentences keep their first `tokens`; what is left of overlong ones follows as further sentences, with numbers of their own."""
        long = np.flatnonzero(self.sentences.lengths > tokens)
        whole = self.sentences.lengths[long].astype(np.int64)
        pieces = [(index, np.arange(tokens, length, tokens)) for index, length in zip(long.tolist(), whole.tolist(), strict=True)]
        starts = np.concatenate([starts for _, starts in pieces])
        indices = np.concatenate([np.full(len(starts), index) for index, starts in pieces])
        self._rest = np.stack([indices, starts])
        left = np.minimum(self.sentences.lengths[indices] - starts, tokens)
        self.lengths = np.concatenate([np.minimum(self.sentences.lengths, tokens), left.astype(np.int32)])
        log.info("%s sentences longer than train.global_batch_tokens are cut, into %s more pieces", f"{len(long):,}", f"{len(starts):,}")

    def steps(self, epoch: int) -> int:
        return len(self._bounds) - 1

    def indices(self, epoch: int, step: int) -> Array:
        """The sentences of a global batch, shortest first."""
        if epoch != self._epoch:
            self._order = np.zeros(0, np.uint32)  # rather than two at a time
            self._order = _by_length(self.lengths, self._counts)
            shuffled = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            for first, last in itertools.pairwise([0, *np.cumsum(self._counts).tolist()]):
                shuffled.shuffle(self._order[first:last])
            self._batches = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 2**32])).permutation(self.steps(epoch))
            self._epoch = epoch
        batch = self._batches[step]
        return self._order[self._bounds[batch] : self._bounds[batch + 1]].astype(np.int64)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        indices = self.indices(epoch, step)
        mine = indices[::-1][part::parts]
        lengths, further = self.lengths[mine].astype(np.int64), mine - len(self.sentences)
        inner = further >= 0
        numbers, starts = mine.copy(), np.zeros(len(mine), np.int64)
        numbers[inner], starts[inner] = self._rest[:, further[inner]]
        tokens = int(self.lengths[indices].sum(dtype=np.int64))
        return Segments(*self.sentences.pieces(numbers, starts, lengths), lengths, mine, tokens, len(indices))


_BLOCK = 1 << 17
"""Sentences sorted at a time: what a sort needs besides its result stays small."""


def _lengths_counted(lengths: Array) -> Array:
    """[longest + 1] how many sentences have each length."""
    blocks = (lengths[first : first + _BLOCK] for first in range(0, len(lengths), _BLOCK))
    return sum((np.bincount(block, minlength=int(lengths.max()) + 1) for block in blocks), np.zeros(int(lengths.max()) + 1, np.int64))


def _by_length(lengths: Array, counts: Array) -> Array:
    """[S] uint32: the sentences, shortest first, those of equal length in order (a counting sort, block by block)."""
    order = np.empty(len(lengths), np.uint32)
    places = np.cumsum(counts) - counts
    for first in range(0, len(lengths), _BLOCK):
        block = lengths[first : first + _BLOCK]
        local = np.argsort(block, kind="stable")
        values, starts, found = np.unique(block[local], return_index=True, return_counts=True)
        order[np.repeat(places[values] - starts, found) + np.arange(len(block))] = first + local
        places[values] += found
    return order


def _bounds(counts: Array, tokens: int) -> Array:
    """Where batches begin among the sentences sorted by length, and the last ends: batch b holds those that start within
    [b, b + 1) * tokens, whichever of equal length come first."""
    lengths = np.flatnonzero(counts)
    numbers = counts[lengths]
    ends = np.cumsum(numbers * lengths)
    edges = np.arange(tokens, ends[-1], tokens)
    group = np.searchsorted(ends, edges, side="right")
    within = -(-(edges - (ends - numbers * lengths)[group]) // lengths[group])
    return np.unique(np.concatenate([[0], (np.cumsum(numbers) - numbers)[group] + within, [counts.sum()]]))

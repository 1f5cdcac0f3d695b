"""Batches of sentences of similar length."""

import itertools
import logging

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset.views import Array, Sentences

from .plan import StatelessPlan

log = logging.getLogger("packlm")


class SentencePlan(StatelessPlan):
    """Groups sentences of similar or equal length into global batches of about `tokens`; each epoch has its own random groups and order.

    The sentences of a global batch, sorted from the longest, go to the parts in turn. So the parts are equal in tokens to within one
    sentence, their longest sentences are the longest of the batch, and no part waits for another. Memory: 4 bytes a sentence for the
    order of the epoch, besides the lengths.
    """

    unit = "sentences"

    def __init__(self, sentences: Sentences, tokens: int, seed: int, on_overlong: str = "error", grouping: str = "similar"):
        """
        Args:
            on_overlong: what happens to sentences of more than `tokens`: "error", or "cut" into pieces that each start from zero.
            grouping: whether the lengths in a batch are "similar" or "equal".

        Raises:
            RequestError: a sentence has more than `tokens`, and `on_overlong` is "error".
        """
        self.sentences, self.seed = sentences, seed
        self.lengths = sentences.lengths
        self._pieces = np.zeros((2, 0), np.int64)
        """[2, N] sentence and offset in it of each piece that was cut off; their keys follow those of the sentences."""
        longest = int(sentences.lengths.max())
        if longest > tokens:
            if on_overlong == "error":
                raise RequestError(
                    f"train.global_batch_tokens: {tokens:,} is less than the longest sentence, {longest:,} tokens; "
                    'raise it, cut such sentences with train.on_overlong = "cut", or split them in preprocessing with corpus.max_tokens'
                )
            self._cut(tokens)
        self.keys, self.targets = len(self.lengths), sentences.tokens
        """Keys of its segments go from 0 to the one, and an epoch has the other."""
        self._counts = _count_lengths(self.lengths)
        self._order = np.zeros(0, np.uint32)
        self._bounds = _batch_bounds(self._counts, tokens)
        if grouping == "equal":
            bounds, others = _equal_bounds(self._counts, tokens), self._bounds
            log.info("batches of equal lengths: %s updates an epoch, %s with similar ones", f"{len(bounds) - 1:,}", f"{len(others) - 1:,}")
            self._bounds = bounds
        self._epoch = -1

    def _cut(self, tokens: int) -> None:
        """Shortens sentences to their first `tokens`; the rest follows as further pieces."""
        overlong = np.flatnonzero(self.sentences.lengths > tokens)
        offsets = [np.arange(tokens, length, tokens) for length in self.sentences.lengths[overlong].tolist()]
        indices, starts = np.repeat(overlong, [len(some) for some in offsets]), np.concatenate(offsets)
        self._pieces = np.stack([indices, starts])
        lengths = np.minimum(self.sentences.lengths[indices] - starts, tokens)
        self.lengths = np.concatenate([np.minimum(self.sentences.lengths, tokens), lengths.astype(np.int32)])
        log.info(
            "cut %s sentences longer than train.global_batch_tokens (%s) into %s more pieces",
            f"{len(overlong):,}", f"{tokens:,}", f"{len(starts):,}",
        )  # fmt: skip

    def steps(self, epoch: int) -> int:
        return len(self._bounds) - 1

    def indices(self, epoch: int, step: int) -> Array:
        """The sentences and pieces of a global batch, shortest first."""
        if epoch != self._epoch:
            self._order = np.zeros(0, np.uint32)  # frees the old order before the new one is made
            self._order = _sort_by_length(self.lengths, self._counts)
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            for first, last in itertools.pairwise([0, *np.cumsum(self._counts).tolist()]):
                generator.shuffle(self._order[first:last])
            self._batches = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 2**32])).permutation(self.steps(epoch))
            self._epoch = epoch
        batch = self._batches[step]
        return self._order[self._bounds[batch] : self._bounds[batch + 1]].astype(np.int64)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        indices = self.indices(epoch, step)
        keys = indices[::-1][part::parts]
        sentences, starts = keys.copy(), np.zeros(len(keys), np.int64)
        cut_off = keys >= len(self.sentences)
        sentences[cut_off], starts[cut_off] = self._pieces[:, keys[cut_off] - len(self.sentences)]
        lengths = self.lengths[keys].astype(np.int64)
        tokens = int(self.lengths[indices].sum(dtype=np.int64))
        return Segments(*self.sentences.pieces(sentences, starts, lengths), lengths, keys, tokens, len(indices))


_BLOCK = 1 << 17
"""Sentences sorted at a time, which bounds the memory that a sort needs besides its result."""


def _count_lengths(lengths: Array) -> Array:
    """[longest + 1] number of sentences of each length."""
    blocks = (lengths[first : first + _BLOCK] for first in range(0, len(lengths), _BLOCK))
    return sum((np.bincount(block, minlength=int(lengths.max()) + 1) for block in blocks), np.zeros(int(lengths.max()) + 1, np.int64))


def _sort_by_length(lengths: Array, counts: Array) -> Array:
    """[S] uint32: the sentences, shortest first, those of equal length in order (a counting sort, block by block)."""
    order = np.empty(len(lengths), np.uint32)
    offsets = np.cumsum(counts) - counts  # where the next sentence of each length goes
    for first in range(0, len(lengths), _BLOCK):
        block = lengths[first : first + _BLOCK]
        sorted_block = np.argsort(block, kind="stable")
        values, starts, numbers = np.unique(block[sorted_block], return_index=True, return_counts=True)
        order[np.repeat(offsets[values] - starts, numbers) + np.arange(len(block))] = first + sorted_block
        offsets[values] += numbers
    return order


def _batch_bounds(counts: Array, tokens: int) -> Array:
    """Where each batch begins among the sentences sorted by length, and where the last ends.

    Laid end to end in that order, batch b has the sentences that start within [b, b + 1) * tokens. Args: `counts` of each length.
    """
    lengths = np.flatnonzero(counts)
    numbers = counts[lengths]
    ends = np.cumsum(numbers * lengths)
    edges = np.arange(tokens, ends[-1], tokens)
    group = np.searchsorted(ends, edges, side="right")
    within = -(-(edges - (ends - numbers * lengths)[group]) // lengths[group])
    return np.unique(np.concatenate([[0], (np.cumsum(numbers) - numbers)[group] + within, [counts.sum()]]))


def _equal_bounds(counts: Array, tokens: int) -> Array:
    """As `_batch_bounds`, but a batch ends where a length does: it has as many sentences as make `tokens`, or what is left of a length."""
    ends = np.cumsum(counts).tolist()
    starts = [
        np.arange(ends[length] - int(counts[length]), ends[length], max(1, tokens // length)) for length in np.flatnonzero(counts).tolist()
    ]
    return np.append(np.concatenate(starts), counts.sum())

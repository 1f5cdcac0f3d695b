"""Sums of losses and accuracies by group: by document, by sentence length, by frequency of the token in the training split.

Shapes: N targets of a split in order, S sentences, D documents, V vocabulary, G groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from packlm.batches.segments import Segments
from packlm.dataset.views import concatenated_ranges
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import Scorer
from packlm.model.recurrence import State
from packlm.model.softmax.loss import RowScores

Array = np.ndarray

LENGTHS = (1, 6, 11, 21, 41, 81, 161, 321)
"""First sentence length (tokens, `<eos>` included) of each group."""
COUNTS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
"""First frequency in the training split of each group of tokens."""


@dataclass(frozen=True)
class Grouping:
    """Assigns targets to groups."""

    names: Sequence[str]
    """[G] names of the groups."""
    groups_of: Callable[[Array, Array], Array]
    """(offsets in the split, ids) of targets -> the group of each."""


def by_document(opens: Array) -> Grouping:
    """Every document is a group; `opens`: [D] the first target of each."""
    return Grouping([str(number) for number in range(len(opens))], lambda offsets, ids: _range_of(opens, offsets))


def by_sentence_length(lengths: Array) -> Grouping:
    """Groups of `LENGTHS`; `lengths`: [S] tokens of each sentence."""
    starts, groups = np.cumsum(lengths, dtype=np.int64) - lengths, _range_of(LENGTHS, lengths)
    return Grouping(_range_names(LENGTHS), lambda offsets, ids: groups[_range_of(starts, offsets)])


def by_token(vocab_size: int, eos: int, unknown: int | None, counts: Array | None) -> Grouping:
    """`<eos>`, the unknown token, and the others by their frequency in training, if known (`counts` [V])."""
    names = ["<eos>", "unknown", *(["other"] if counts is None else _range_names(COUNTS))]
    groups = np.full(vocab_size, 2) if counts is None else _range_of(COUNTS, counts) + 2
    groups[eos] = 0
    if unknown is not None:
        groups[unknown] = 1
    return Grouping(names, lambda offsets, ids: groups[ids])


def _range_of(starts: Array | Sequence[int], values: Array) -> Array:
    """Index of the last of ascending `starts` that is not above each value."""
    return np.searchsorted(starts, values, side="right") - 1


def _range_names(starts: Sequence[int]) -> list[str]:
    """Names of the ranges that begin at `starts`: "0", "1-9", "10-99", ..., "100,000-"."""
    names = [f"{low:,}-{high - 1:,}" if low < high - 1 else f"{low:,}" for low, high in pairwise(starts)]
    return [*names, f"{starts[-1]:,}-"]


@dataclass(frozen=True)
class GroupSums:
    """Sums over the targets of each group, each [G]."""

    tokens: Array
    nll: Array
    """Nats."""
    top_1: Array
    """Targets that were the most likely token."""
    top_5: Array
    """Targets among the five most likely tokens."""


class DetailedScorer(Scorer):
    """Wraps a scorer, sums its scores by group, and keeps the loss of each target if asked to."""

    def __init__(self, scorer: Scorer, groupings: dict[str, Grouping], num_kept: int = 0):
        """`num_kept`: the number of all targets, to keep their losses; 8 bytes each."""
        self.scorer, self.groupings, self.max_window = scorer, groupings, scorer.max_window
        self._sums = {name: np.zeros((4, len(grouping.names))) for name, grouping in groupings.items()}
        self._losses = np.zeros(num_kept)

    def zero_state(self, segments: int) -> State:
        return self.scorer.zero_state(segments)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        scores, state = self.scorer.scores(segments, state)
        offsets = concatenated_ranges(segments.keys, segments.keys + segments.lengths)
        losses, likelier = scores.losses.double().cpu().numpy(), scores.likelier.cpu().numpy()
        if len(self._losses):
            self._losses[offsets] = losses
        rows = (np.ones(len(losses)), losses, likelier < 1, likelier < 5)
        for name, grouping in self.groupings.items():
            groups, inverse = np.unique(grouping.groups_of(offsets, segments.targets), return_inverse=True)
            for row, values in zip(self._sums[name], rows, strict=True):
                row[groups] += np.bincount(inverse, values)
        return scores, state

    def sums(self, ranks: Ranks) -> dict[str, GroupSums]:
        """All ranks: the sums over all of them, for each grouping."""
        return {name: GroupSums(*ranks.sum(sums)) for name, sums in self._sums.items()}

    def token_losses(self, ranks: Ranks) -> Array:
        """All ranks: the loss of each target, [N] in nats; empty if they are not kept."""
        return ranks.sum(self._losses)

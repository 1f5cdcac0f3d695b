"""Sums of losses and accuracies by group: by document, by sentence length, by frequency of the token in the training split.

Shapes: N targets of a split in order, S sentences, D documents, V vocabulary, G groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from packlm.batches.segments import Segments
from packlm.dataset.views import concatenated_ranges
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import Scorer
from packlm.model.loss import RowScores
from packlm.model.recurrence import State

Array = np.ndarray

LENGTHS = (1, 6, 11, 21, 41, 81, 161, 321)
"""First sentence length (tokens, `<eos>` included) of each group."""
COUNTS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
"""First frequency in the training split of each group of tokens."""


@dataclass(frozen=True)
class Grouping:
    """Assigns targets to groups: by their ids (`of_id`), or by their offsets in the split (`bounds`, `of_run`)."""

    names: Sequence[str]
    """[G] names of the groups."""
    of_id: Array | None = None
    """[V] the group of each id."""
    bounds: Array | None = None
    """Ascending offsets at which runs of targets of one group begin, the first one 0."""
    of_run: Array | None = None
    """The group of each run."""

    def groups_of(self, offsets: Array, ids: Array) -> Array:
        """The group of each target, given its offset in the split and its id."""
        if self.of_id is not None:
            return self.of_id[ids]
        assert self.bounds is not None and self.of_run is not None
        return self.of_run[np.searchsorted(self.bounds, offsets, side="right") - 1]


def by_document(opens: Array) -> Grouping:
    """Every document is a group; `opens`: [D] the first target of each."""
    return Grouping([str(number) for number in range(len(opens))], bounds=opens, of_run=np.arange(len(opens)))


def by_sentence_length(lengths: Array) -> Grouping:
    """Groups of `LENGTHS`; `lengths`: [S] tokens of each sentence."""
    runs = np.searchsorted(LENGTHS, lengths, side="right") - 1
    return Grouping(_ranges(LENGTHS), bounds=np.cumsum(lengths, dtype=np.int64) - lengths, of_run=runs)


def by_token(vocab_size: int, eos: int, unknown: int | None, counts: Array | None) -> Grouping:
    """`<eos>`, the unknown token, and the others by their frequency in training, if known (`counts` [V])."""
    names = ["<eos>", "unknown", *(["other"] if counts is None else _ranges(COUNTS))]
    groups = np.full(vocab_size, 2) if counts is None else np.searchsorted(COUNTS, counts, side="right") + 1
    groups[eos] = 0
    if unknown is not None:
        groups[unknown] = 1
    return Grouping(names, of_id=groups)


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
    """Wraps a scorer and sums its scores by group."""

    def __init__(self, scorer: Scorer, groupings: dict[str, Grouping]):
        self.scorer, self.groupings, self.max_window = scorer, groupings, scorer.max_window
        self._sums = {name: np.zeros((4, len(grouping.names))) for name, grouping in groupings.items()}

    def zero_state(self, segments: int) -> State:
        return self.scorer.zero_state(segments)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        scores, state = self.scorer.scores(segments, state)
        offsets = concatenated_ranges(segments.keys, segments.keys + segments.lengths)
        losses, likelier = scores.losses.double().cpu().numpy(), scores.likelier.cpu().numpy()
        rows = (np.ones(len(losses)), losses, likelier < 1, likelier < 5)
        for name, grouping in self.groupings.items():
            groups, inverse = np.unique(grouping.groups_of(offsets, segments.targets), return_inverse=True)
            for row, values in zip(self._sums[name], rows, strict=True):
                row[groups] += np.bincount(inverse, values)
        return scores, state

    def sums(self, ranks: Ranks) -> dict[str, GroupSums]:
        """All ranks: the sums over all of them, for each grouping."""
        return {name: GroupSums(*ranks.sum(sums)) for name, sums in self._sums.items()}


def _ranges(starts: Sequence[int]) -> list[str]:
    """Names of the ranges that begin at `starts`: "0", "1-9", "10-99", ..., "100,000-"."""
    names = [f"{low:,}-{high - 1:,}" if low < high - 1 else f"{low:,}" for low, high in pairwise(starts)]
    return [*names, f"{starts[-1]:,}-"]

"""What an evaluation finds besides the sum of all losses: by document, by length of the sentence, by how often training has the token.

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
"""Where groups of sentence lengths (tokens, `<eos>` included) begin."""
COUNTS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
"""Where groups of how often a token occurs in training begin."""


@dataclass(frozen=True)
class Grouping:
    """A way to tell targets apart."""

    names: Sequence[str]
    """[G] what the groups are called."""
    of_id: Array | None = None
    """[V] the group of each id; or else"""
    bounds: Array | None = None
    """rising places in the split at which a run of targets of one group begins, the first at 0, and"""
    of_run: Array | None = None
    """the group of each run."""

    def find(self, places: Array, ids: Array) -> Array:
        """The group of targets: their places in the split, and their ids."""
        if self.of_id is not None:
            return self.of_id[ids]
        assert self.bounds is not None and self.of_run is not None
        return self.of_run[np.searchsorted(self.bounds, places, side="right") - 1]


def by_document(opens: Array) -> Grouping:
    """Each document by itself; `opens`: [D] the first target of each."""
    return Grouping([str(number) for number in range(len(opens))], bounds=opens, of_run=np.arange(len(opens)))


def by_sentence_length(lengths: Array) -> Grouping:
    """[S] tokens of each sentence."""
    runs = np.searchsorted(LENGTHS, lengths, side="right") - 1
    return Grouping(_ranges(LENGTHS), bounds=np.cumsum(lengths, dtype=np.int64) - lengths, of_run=runs)


def by_token(vocab_size: int, eos: int, unknown: int | None, counts: Array | None) -> Grouping:
    """`<eos>`, the unknown token, and all others: by how often they occur in training where that is known ([V] `counts`)."""
    names = ["<eos>", "unknown", *(["other"] if counts is None else _ranges(COUNTS))]
    groups = np.full(vocab_size, 2) if counts is None else np.searchsorted(COUNTS, counts, side="right") + 1
    groups[eos] = 0
    if unknown is not None:
        groups[unknown] = 1
    return Grouping(names, of_id=groups)


@dataclass(frozen=True)
class GroupSums:
    """What was added up over the targets of each group, each [G]."""

    tokens: Array
    nll: Array
    """Nats."""
    first: Array
    """Targets than which no token was likelier."""
    among_five: Array
    """Targets than which at most four tokens were likelier."""


class DetailedScorer(Scorer):
    """Scores as another scorer does, and adds up what it found by group."""

    def __init__(self, scorer: Scorer, groupings: dict[str, Grouping]):
        self.scorer, self.groupings, self.longest = scorer, groupings, scorer.longest
        self._sums = {name: np.zeros((4, len(grouping.names))) for name, grouping in groupings.items()}

    def zero_state(self, segments: int) -> State:
        return self.scorer.zero_state(segments)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        scores, state = self.scorer.scores(segments, state)
        places = concatenated_ranges(segments.keys, segments.keys + segments.lengths)
        losses, likelier = scores.losses.double().cpu().numpy(), scores.likelier.cpu().numpy()
        rows = (np.ones(len(losses)), losses, likelier < 1, likelier < 5)
        for name, grouping in self.groupings.items():
            groups, where = np.unique(grouping.find(places, segments.targets), return_inverse=True)
            for row, values in zip(self._sums[name], rows, strict=True):
                row[groups] += np.bincount(where, values)
        return scores, state

    def sums(self, ranks: Ranks) -> dict[str, GroupSums]:
        """All ranks: what all of them added up, by grouping."""
        return {name: GroupSums(*ranks.sum(sums)) for name, sums in self._sums.items()}


def _ranges(starts: Sequence[int]) -> list[str]:
    """Names of the ranges that begin at `starts`: "0", "1-9", "10-99", ..., "100,000-"."""
    names = [f"{low:,}-{high - 1:,}" if low < high - 1 else f"{low:,}" for low, high in pairwise(starts)]
    return [*names, f"{starts[-1]:,}-"]

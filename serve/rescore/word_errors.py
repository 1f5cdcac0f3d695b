"""Word errors: the fewest insertions, deletions and substitutions of words that turn a hypothesis into its reference (Levenshtein 1966).

Words are separated by whitespace and compared exactly: the texts must agree in case and spelling.
"""

from collections.abc import Sequence
from dataclasses import dataclass


def errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """The edit distance of two sequences of words."""
    start, ends = 0, (len(reference), len(hypothesis))
    while start < min(ends) and reference[start] == hypothesis[start]:
        start += 1
    while start < min(ends) and reference[ends[0] - 1] == hypothesis[ends[1] - 1]:
        ends = ends[0] - 1, ends[1] - 1
    reference, hypothesis = reference[start : ends[0]], hypothesis[start : ends[1]]
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


@dataclass(frozen=True)
class WordErrorRate:
    """Word errors of hypotheses against their references."""

    errors: int
    words: int
    """Words of the references."""

    @property
    def rate(self) -> float:
        """Errors per word of the references; above 1 if there are many insertions."""
        return self.errors / self.words

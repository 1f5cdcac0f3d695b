"""Word errors: the fewest insertions, deletions and substitutions of words that turn what was recognised into what was said.

Words are what stands between white space, compared letter by letter (Levenshtein 1966): the texts must agree in case and spelling.
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
    for number, word in enumerate(reference, 1):
        corner, row[0] = row[0], number
        for place, other in enumerate(hypothesis, 1):
            corner, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, corner + (word != other))
    return row[-1]


@dataclass(frozen=True)
class WordErrorRate:
    """A word error rate."""

    errors: int
    words: int
    """Of the references."""

    @property
    def rate(self) -> float:
        """Errors a word; more than 1 where more was inserted than said."""
        return self.errors / self.words

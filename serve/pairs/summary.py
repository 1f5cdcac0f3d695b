"""The accuracy of a model on minimal pairs, with its interval, mean difference and ties, over all pairs and for each group."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from packlm.base import escape, json_text
from packlm.base.escape import Multiline, one_line
from packlm.distributed import Ranks

from .pairs import Pair, PairRow

NORMAL_95 = 1.959963984540054
"""95 % of a normal distribution lie within this many standard deviations of its mean."""
COUNTS = (
    "pairs", "correct", "correct_per_token", "ties", "with_unknown_words", "known_correct", "known_correct_per_token", "difference",
)  # fmt: skip
"""`known`: of the pairs without unknown words."""


class PairCounts:
    """Counts of pairs by group, each an array as `COUNTS` says; memory depends on the number of groups alone."""

    def __init__(self) -> None:
        self.errors = 0
        """Lines with errors."""
        self._groups: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(COUNTS)))

    def count(self, results: Iterable[tuple[PairRow, Pair | None]], group: str) -> Iterator[tuple[PairRow, Pair | None]]:
        """Passes results through and counts them. `group`: what they are grouped by, as for `PairRow.group`; empty for no groups."""
        for row, pair in results:
            if pair is None:
                self.errors += 1
            else:
                self.add(row.group(group) if group else "", pair)
            yield row, pair

    def add(self, group: str, pair: Pair) -> None:
        """Counts a pair."""
        difference, known = pair.difference, not any(pair.unknown)
        right, right_per_token = difference > 0, pair.difference_per_token > 0
        self._groups[group] += (
            1, right, right_per_token, difference == 0, not known, right and known, right_per_token and known, difference,
        )  # fmt: skip

    def reduce(self, ranks: Ranks) -> None:
        """All ranks: sums the counts of all ranks on rank 0."""
        encoded = json_text.dumps([self.errors, {name: counts.tolist() for name, counts in self._groups.items()}]).encode()
        sizes = ranks.sum(np.eye(ranks.world)[ranks.rank] * len(encoded)).astype(int).tolist()
        gathered = ranks.gather(torch.frombuffer(bytearray(encoded), dtype=torch.uint8).to(ranks.device), 0, sizes)
        if gathered is None:
            return
        self.errors = 0
        self._groups.clear()
        for part in np.split(gathered.cpu().numpy(), np.cumsum(sizes)[:-1]):
            errors, groups = json_text.loads(part.tobytes())
            self.errors += errors
            for name, counts in groups.items():
                self._groups[name] += counts

    def summary(self) -> dict[str, Any]:
        """The numbers over all pairs, and below `groups` those of each group if pairs are grouped."""
        total = _numbers(sum(self._groups.values(), np.zeros(len(COUNTS)))) | {"lines_that_are_no_pairs": self.errors}
        groups = {name: _numbers(self._groups[name]) for name in sorted(self._groups)}
        return total | ({"groups": groups} if list(groups) != [""] else {})


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, correct / count (Wilson 1927), which stays within 0 and 1 and is valid for few pairs too."""
    share, squared = correct / count, NORMAL_95**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    half = NORMAL_95 / (1 + squared / count) * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _numbers(counts: np.ndarray) -> dict[str, Any]:
    pairs, correct, correct_per_token, ties, unknown, known_correct, known_correct_per_token = (int(count) for count in counts[:-1])
    numbers = _accuracies(pairs, correct, correct_per_token)
    if pairs:
        numbers |= {"mean_difference": round(float(counts[-1]) / pairs, 6), "ties": ties, "pairs_with_unknown_words": unknown}
        numbers["without_unknown_words"] = _accuracies(pairs - unknown, known_correct, known_correct_per_token)
    return numbers


def _accuracies(pairs: int, correct: int, correct_per_token: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {"pairs": pairs}
    for name, count in (("accuracy", correct), ("accuracy_per_token", correct_per_token)) if pairs else ():
        low, high = wilson(count, pairs)
        numbers |= {name: round(count / pairs, 6), f"{name}_interval": [round(low, 6), round(high, 6)]}
    return numbers


def warning(summary: dict[str, Any]) -> str:
    """What speaks against the accuracy of all pairs; empty if nothing does."""
    unknown, pairs = summary["pairs_with_unknown_words"], summary["pairs"]
    if not unknown:
        return ""
    known = summary["without_unknown_words"]
    of_known = f"accuracy of the other {known['pairs']:,}: {100 * known['accuracy']:.1f} %" if known["pairs"] else "there are no others"
    return (
        f"{unknown:,} of {pairs:,} pairs have a word that the model does not know, and two such words are one to it (ties: "
        f"{summary['ties']:,}, which count as wrong); {of_known}. A model with a bpe tokenizer knows every word"
    )


def table(summary: dict[str, Any]) -> Multiline:
    """A summary as a table for people."""
    rows: list[tuple[str, ...]] = [
        ("", "pairs", "accuracy", "95 % interval", "per token", "ties", "difference", "unknown", "accuracy of the others")
    ]
    for name, numbers in [("all", summary), *summary.get("groups", {}).items()]:
        low, high = numbers["accuracy_interval"]
        known = numbers["without_unknown_words"]
        rows.append((
            one_line(name), f"{numbers['pairs']:,}", f"{100 * numbers['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * numbers['accuracy_per_token']:.1f} %", f"{numbers['ties']:,}", f"{numbers['mean_difference']:.3f}",
            f"{numbers['pairs_with_unknown_words']:,}", f"{100 * known['accuracy']:.1f} %" if known["pairs"] else "-",
        ))  # fmt: skip
    if not summary["pairs_with_unknown_words"]:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
             for row in rows]  # fmt: skip
    lines.append("Accuracy: share of pairs in which the good sentence has the higher log P (per token: log P per token); ties are wrong.")
    lines.append("Difference: mean of log P(good) - log P(bad), in nats. Unknown: pairs with a word that the model does not know.")
    return escape.lines(*lines)

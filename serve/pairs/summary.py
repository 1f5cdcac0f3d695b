"""How many minimal pairs a model gets right: accuracy with its interval, differences and ties, of all pairs and of each group."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from packlm.distributed import Ranks

from ..score.sentence_files import Row
from .pairs import Pair

NORMAL_95 = 1.959963984540054
"""Standard deviations from the mean within which 95 % of a normal distribution lie."""
COUNTS = ("pairs", "correct", "correct_per_token", "ties", "with_unknown_words", "difference")


class PairCounts:
    """Counts of pairs by group; the memory it takes depends on the number of groups alone."""

    def __init__(self) -> None:
        self.errors = 0
        """Lines that are no pairs."""
        self._groups: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(COUNTS)))

    def keep(self, found: Iterable[tuple[Row, Pair | None]], group_of: Callable[[Row], str]) -> Iterator[tuple[Row, Pair | None]]:
        """Passes pairs on, counted. `group_of`: the name of a row's group."""
        for row, pair in found:
            if pair is None:
                self.errors += 1
            else:
                self.add(group_of(row), pair)
            yield row, pair

    def add(self, group: str, pair: Pair) -> None:
        """Counts a pair."""
        difference = pair.difference
        right, right_per_token = difference > 0, pair.difference_per_token > 0
        self._groups[group] += (1, right, right_per_token, difference == 0, any(pair.unknown), difference)

    def join(self, ranks: Ranks) -> None:
        """All ranks: rank 0 gets the counts of all."""
        own = json.dumps([self.errors, {name: counts.tolist() for name, counts in self._groups.items()}]).encode()
        sizes = ranks.sum(np.eye(ranks.world)[ranks.rank] * len(own)).astype(int).tolist()
        data = ranks.gather(torch.frombuffer(bytearray(own), dtype=torch.uint8).to(ranks.device), 0, sizes)
        if data is None:
            return
        self.errors = 0
        self._groups.clear()
        for part in np.split(data.cpu().numpy(), np.cumsum(sizes)[:-1]):
            errors, groups = json.loads(part.tobytes())
            self.errors += errors
            for name, counts in groups.items():
                self._groups[name] += counts

    def summary(self) -> dict[str, Any]:
        """The numbers of all pairs, and under `groups` of each group, where pairs are grouped."""
        whole = _numbers(sum(self._groups.values(), np.zeros(len(COUNTS)))) | {"lines_that_are_no_pairs": self.errors}
        groups = {name: _numbers(self._groups[name]) for name in sorted(self._groups)}
        return whole | ({"groups": groups} if list(groups) != [""] else {})


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, right / count (Wilson 1927): it stays within 0 and 1 and holds for few pairs too."""
    share, squared = right / count, NORMAL_95**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    half = NORMAL_95 / (1 + squared / count) * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _numbers(counts: np.ndarray) -> dict[str, Any]:
    pairs, right, right_per_token, ties, unknown = (int(count) for count in counts[:-1])
    found: dict[str, Any] = {"pairs": pairs}
    if pairs:
        for name, share in (("accuracy", right), ("accuracy_per_token", right_per_token)):
            low, high = wilson(share, pairs)
            found |= {name: round(share / pairs, 6), f"{name}_interval": [round(low, 6), round(high, 6)]}
        found |= {"mean_difference": round(float(counts[-1]) / pairs, 6), "ties": ties, "pairs_with_unknown_words": unknown}
    return found


def table(summary: dict[str, Any]) -> str:
    """A summary for people."""
    rows = [("", "pairs", "accuracy", "95 % interval", "per token", "ties", "unknown", "difference")]
    for name, found in [("all", summary), *summary.get("groups", {}).items()]:
        low, high = found["accuracy_interval"]
        rows.append((
            name, f"{found['pairs']:,}", f"{100 * found['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * found['accuracy_per_token']:.1f} %", f"{found['ties']:,}", f"{found['pairs_with_unknown_words']:,}",
            f"{found['mean_difference']:.3f}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
             for row in rows]  # fmt: skip
    lines.append("Accuracy: the good sentence has the higher log P, or the higher log P per token; a tie counts as wrong.")
    lines.append("Difference: the mean of log P(good) - log P(bad), in nats. Unknown: pairs in which a word is unknown to the model.")
    return "\n".join(lines)

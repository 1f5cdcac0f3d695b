"""What stands in several documents: whole texts, lines, and runs of eight words of the held-out documents."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RUN = 8
"""Words of a run; shorter ones are phrases that any two texts share."""
_MIN_SHARE, _MIN_DOCUMENTS, _MAX_LINES = 0.5, 5, 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Overlap:
    """What some documents share."""

    duplicates: int
    """Documents whose text an earlier one has."""
    repeated_lines: list[str]
    """Lines that at least half of the documents hold."""
    held_out_runs: float
    """Share of the runs of eight words of held-out documents that occur in the others; 0 where there are none."""


def measure(texts: Sequence[str], held_out: Sequence[bool]) -> Overlap:
    """The overlap of some documents; `held_out` says for each whether it is in the validation or the test split."""
    lines = Counter(line for text in texts for line in {line.strip() for line in text.splitlines()} if line)
    least = max(_MIN_DOCUMENTS, _MIN_SHARE * len(texts))
    repeated = [line for line, count in lines.most_common(_MAX_LINES) if count >= least]
    return Overlap(len(texts) - len(set(texts)), repeated, _shared_runs(texts, held_out))


def _shared_runs(texts: Sequence[str], held_out: Sequence[bool]) -> float:
    numbers: dict[str, int] = {}
    runs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for text, out in zip(texts, held_out, strict=True):
        words = np.array([numbers.setdefault(word, len(numbers) + 1) for word in text.split()], np.uint64)
        hashes = np.zeros(max(0, len(words) - RUN + 1), np.uint64)
        for offset in range(RUN):
            hashes = hashes * _FACTOR + words[offset : offset + len(hashes)]
        runs[out].append(hashes)
    train, rest = (np.concatenate([np.empty(0, np.uint64), *parts]) for parts in runs)
    return float(np.isin(rest, np.unique(train)).mean()) if len(rest) else 0.0

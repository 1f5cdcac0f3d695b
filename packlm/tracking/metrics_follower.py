"""Follows a stage's `metrics.jsonl` and turns its lines into points that a tracking store can take.

A line is one JSON object: `step` (updates done), `tokens` (targets trained on so far), `time` (Unix seconds) and any number of
metrics. The file is the truth: the follower keeps the offset up to which it was delivered, and reads on from there.
"""

import math
from pathlib import Path
from typing import NamedTuple

from packlm.base import json_text
from packlm.tracking import metric_names

BATCH_POINTS = 900
"""Most points read at a time, to within a line; MLflow refuses more than 1,000 in a request."""


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    value: float
    time: float
    """Unix seconds."""
    step: int


class MetricsFollower:
    """An offset in a `metrics.jsonl`: `next` reads on from it; the caller sets it once the points are delivered."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.offset = 0
        """Everything before it is delivered."""
        self._inode = 0

    def next(self) -> tuple[list[Point], int]:
        """The points of the next lines, and the offset after them; the same offset if there is no complete new line.

        A file that was replaced or cut back is read from its beginning.
        """
        points: list[Point] = []
        try:
            with open(self.path, "rb") as stream:
                self._start_over_if_replaced()
                stream.seek(self.offset)
                end = self.offset
                for line in stream:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    points += points_of(line)
                    end += len(line)
                    if len(points) >= BATCH_POINTS:
                        break
        except FileNotFoundError:
            return [], self.offset
        return points, end

    def remaining(self) -> int:
        """The number of complete lines that have not been delivered."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.offset)
                return sum(line.endswith(b"\n") for line in stream)
        except FileNotFoundError:
            return 0

    def _start_over_if_replaced(self) -> None:
        status = self.path.stat()
        if status.st_ino != self._inode or status.st_size < self.offset:
            self.offset = 0
        self._inode = status.st_ino


def points_of(line: bytes) -> list[Point]:
    """The points of one line: each metric against steps, and losses and perplexities against tokens too, as `by_tokens/...`.

    Values that are not finite are left out: MLflow stores an infinity as 1.8e308, which flattens every chart it is on.
    A damaged line has no points.
    """
    try:
        record = json_text.loads(line)
        step, tokens, time = int(record.pop("step")), record.pop("tokens", None), float(record.pop("time"))
        tokens = None if tokens is None else int(tokens)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return []
    if max(abs(step), abs(tokens or 0)) >= 2**63:  # which no store takes
        return []
    points = []
    for key, value in record.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        points.append(Point(key, float(value), time, step))
        if tokens is not None and key.endswith(("loss", "perplexity")):
            points.append(Point(metric_names.by_tokens(key), float(value), time, tokens))
    return points

"""What is measured on the way: averages since the last line, and the file that keeps the lines."""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from packlm.base import files


@dataclass
class MetricSums:
    """Sums over the updates since the last line, as far as they follow from the data: a checkpoint keeps them, so that the lines after a
    restart are those of an undisturbed training."""

    nll: float = 0.0
    """Summed loss, in nats."""
    tokens: int = 0
    norm: float = 0.0
    """Sum of the gradients' norms before clipping."""
    norms: int = 0
    """Updates that had one: all but those in which fp16 overflowed."""
    fill: float = 0.0
    updates: int = 0


class Meter:
    """Averages over the updates since it was last read."""

    def __init__(self, sums: Mapping[str, float] | None = None):
        """`sums`: goes on from what `state` gave."""
        self.sums = MetricSums(**(sums or {}))  # type: ignore[arg-type]
        self.timed_tokens, self.waited, self.since = 0, 0.0, time.monotonic()

    def add(self, nll: float, tokens: int, norm: float | None, fill: float, waited: float) -> None:
        """Adds an update: summed loss (nats) and tokens of its global batch, its gradient's norm before clipping if it has one, the share
        of tokens in the rectangle of this rank's segments, and the seconds until its data were there."""
        sums = self.sums
        sums.nll, sums.tokens, sums.fill, sums.updates = sums.nll + nll, sums.tokens + tokens, sums.fill + fill, sums.updates + 1
        if norm is not None:
            sums.norm, sums.norms = sums.norm + norm, sums.norms + 1
        self.timed_tokens, self.waited = self.timed_tokens + tokens, self.waited + waited

    def restart_clock(self) -> None:
        """Leaves what came before out of the speed and the waiting."""
        self.timed_tokens, self.waited, self.since = 0, 0.0, time.monotonic()

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return asdict(self.sums)

    def read(self) -> dict[str, float]:
        """The averages since the last reading; starts anew."""
        sums, seconds = self.sums, time.monotonic() - self.since
        values = {
            "train/loss": sums.nll / sums.tokens,
            "train/perplexity": math.exp(min(700.0, sums.nll / sums.tokens)),
            "train/fill": sums.fill / sums.updates,
            "train/tokens_per_second": self.timed_tokens / seconds,
            "train/data_wait": self.waited / seconds,
        }
        if sums.norms:
            values["train/gradient_norm"] = sums.norm / sums.norms
        self.sums = MetricSums()
        self.restart_clock()
        return values


def memory_mb(device: torch.device) -> float:
    """Memory that this process holds: the most allocated so far on a GPU, what is resident where there is none; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class MetricsWriter:
    """`metrics.jsonl`: a JSON object a line with `step`, `tokens`, `time` (Unix seconds) and values. The record of a training."""

    def __init__(self, path: Path, after_step: int, validated: bool):
        """Opens the file to go on after a step, and after its validation if it is `validated`: later lines, which a restart measures again,
        are cut off."""
        self.path = path
        kept = []
        if path.exists() and (after_step or validated):
            for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
                line = json.loads(text) if text.endswith("\n") else {"step": math.inf}
                if line["step"] > after_step or (line["step"] == after_step and not validated and "validation/loss" in line):
                    break
                kept.append(text)
        files.write_text(path, "".join(kept))

    def write(self, step: int, tokens: int, values: dict[str, float]) -> None:
        """Appends a line."""
        line = json.dumps({"step": step, "tokens": tokens, "time": round(time.time(), 3), **values}) + "\n"
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

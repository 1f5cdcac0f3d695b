"""Metrics of a training: averages since the last line, and the file of lines."""

import os
import time
from pathlib import Path

import torch
from pydantic import BaseModel, Field

from packlm.base import files, json_lines, json_text
from packlm.base.errors import PacklmError
from packlm.model.finite import perplexity

from ..step import Update


class MetricSums(BaseModel, extra="forbid", strict=True):
    """Sums over the updates since the last line. A checkpoint keeps them, so that a resumed training writes the same lines."""

    nll: float = 0.0
    """Summed loss, in nats."""
    tokens: int = 0
    norm: float = 0.0
    """Sum of the gradient norms before clipping."""
    norms: int = 0
    """Updates with a gradient norm: all except those skipped because fp16 overflowed."""
    fill: float = 0.0
    updates: int = 0
    lr: float = 0.0
    """Learning rate of the latest update."""
    epochs: float = 0.0
    """Passes over the training split until then."""


class Meter:
    """Averages over the updates since the last call of `read`."""

    def __init__(self, sums: MetricSums):
        """Adds to `sums`."""
        self.sums = sums
        self._tokens, self._data_seconds, self._since = 0, 0.0, time.monotonic()

    def add(self, update: Update, epochs: float) -> None:
        sums = self.sums
        sums.nll += update.nll
        sums.tokens += update.tokens
        sums.fill += update.fill
        sums.updates += 1
        sums.lr, sums.epochs = update.lr, epochs
        if update.norm is not None:
            sums.norm, sums.norms = sums.norm + update.norm, sums.norms + 1
        self._tokens, self._data_seconds = self._tokens + update.tokens, self._data_seconds + update.data_seconds

    def restart_clock(self) -> None:
        """Excludes the time until now from the speed, as after a validation."""
        self._tokens, self._data_seconds, self._since = 0, 0.0, time.monotonic()

    def read(self) -> dict[str, float]:
        """The averages since the last call, and the latest learning rate and epoch."""
        sums, seconds = self.sums, time.monotonic() - self._since
        values = {
            "train/loss": sums.nll / sums.tokens,
            "train/perplexity": perplexity(sums.nll / sums.tokens),
            "train/fill": sums.fill / sums.updates,
            "train/tokens_per_second": self._tokens / seconds,
            "train/data_wait": self._data_seconds / seconds,
            "train/lr": sums.lr,
            "train/epoch": sums.epochs,
        }
        if sums.norms:
            values["train/gradient_norm"] = sums.norm / sums.norms
        self.sums = MetricSums()
        self.restart_clock()
        return values


def memory_mb(device: torch.device) -> float:
    """Memory of this process in MiB: peak of allocated memory on a GPU, resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class MetricsWriter:
    """Appends to `metrics.jsonl`: a JSON object per line with `step`, `tokens`, `time` (Unix seconds) and values."""

    def __init__(self, path: Path, after_step: int, validated: bool):
        """Opens the file to continue after a step, and after its validation if `validated`; deletes the lines that will be written anew."""
        self.path = path
        lines = []
        if path.exists() and (after_step or validated):
            for text, line in json_lines.read(path, MetricLine):
                is_validation = line["step"] == after_step and "validation/loss" in line
                if line["step"] > after_step or (is_validation and not validated):
                    break
                lines.append(text)
                if is_validation:  # what follows is of a training that stopped early, and ends again
                    break
        files.write_text(path, "".join(lines))

    def write(self, step: int, tokens: int, values: dict[str, float]) -> None:
        """Appends a line; `PacklmError` if a value is not finite."""
        try:
            line = json_text.dumps({"step": step, "tokens": tokens, "time": round(time.time(), 3), **values}) + "\n"
        except ValueError as error:
            raise PacklmError(f"{self.path}: step {step}: {error}") from None
        with files.naming(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())


class MetricLine(BaseModel, extra="allow", strict=True):
    """What is read back of a line of `metrics.jsonl`."""

    __pydantic_extra__: dict[str, float] = Field(init=False)
    step: int
    tokens: int

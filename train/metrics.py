"""What is measured on the way: averages since the last line, and the file that keeps the lines."""

import json
import os
import time
from pathlib import Path

from pipeline import files


class Meter:
    """Sums since it was last read."""

    def __init__(self) -> None:
        self.nll, self.tokens = 0.0, 0
        self.norms: list[float] = []
        self.restart_clock()

    def add(self, nll: float, tokens: int, norm: float | None) -> None:
        """Adds an update: summed loss (nats) and tokens of its global batch, and its gradient's norm before clipping, if it has one."""
        self.nll, self.tokens = self.nll + nll, self.tokens + tokens
        if norm is not None:
            self.norms.append(norm)
        self.timed_tokens += tokens

    def restart_clock(self) -> None:
        """Leaves what came before out of the speed."""
        self.timed_tokens, self.since = 0, time.monotonic()

    def read(self) -> dict[str, float]:
        """Loss per token, mean gradient norm (if there was one) and speed since the last reading; starts anew."""
        seconds = time.monotonic() - self.since
        values = {
            "train/loss": self.nll / self.tokens,
            "train/tokens_per_second": self.timed_tokens / seconds,
        }
        if self.norms:
            values["train/gradient_norm"] = sum(self.norms) / len(self.norms)
        self.__init__()  # type: ignore[misc]
        return values


class MetricsWriter:
    """`metrics.jsonl`: a JSON object a line with `step`, `tokens`, `time` (Unix seconds) and values. The record of a training."""

    def __init__(self, path: Path, after_step: int):
        """Opens the file to go on after a step: later lines, which a restart measures again, are cut off."""
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if not line.endswith("\n") or json.loads(line)["step"] > after_step:
                    break
                kept.append(line)
        # Without a checkpoint everything is measured again, step 0 included.
        files.write_text(path, "".join(kept) if after_step else "")

    def write(self, step: int, tokens: int, values: dict[str, float]) -> None:
        """Appends a line."""
        line = json.dumps({"step": step, "tokens": tokens, "time": round(time.time(), 3), **values}) + "\n"
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

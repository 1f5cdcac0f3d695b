"""One trial of a sweep: a training in a process of its own, whose validations are read as they come."""

import ctypes
import math
import signal
import subprocess
import sys
import time
from typing import IO, Any

from pydantic import BaseModel

from packlm.base import json_lines
from packlm.config import Config
from packlm.tracking import run_files

from ..stages import share_of_threads, training_command, write_config

LOG = "log.txt"


class _Line(BaseModel, extra="allow"):
    """A line of `metrics.jsonl`."""

    step: int


class Trial:
    """A training that is running, or was started before and is continued."""

    def __init__(self, trial: Any, config: Config, slot: int, environment: dict[str, str], reported: int):
        """
        Args:
            trial: Optuna's.
            config: of the training, with a `run.dir` of its own.
            slot: which of the trainings that run at the same time it is.
            environment: further variables for its process.
            reported: number of its validations that Optuna has.
        """
        self.trial, self.config, self.slot, self.reported = trial, config, slot, reported
        self.started, self.pruned = time.monotonic(), False
        path = config.run.dir / "config.toml"
        environment = write_config(config, path) | environment
        self._log: IO[bytes] = (config.run.dir / LOG).open("ab")
        command = [sys.executable, *training_command(config), "--config", str(path)]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, process_group=0, preexec_fn=_end_with_parent
        )

    @property
    def number(self) -> int:
        return int(self.trial.number)

    def validations(self) -> list[float]:
        """The losses of all validations so far but that before the first update, in order."""
        path = self.config.run.dir / "train" / "metrics.jsonl"
        lines = [line for _, line in json_lines.read(path, _Line)] if path.exists() else []
        return [line["validation/loss"] for line in lines if "validation/loss" in line and line["step"]]

    def stop(self, pruned: bool = False) -> None:
        """Asks the training to end after its current update, with a checkpoint."""
        self.pruned |= pruned
        if self._process.poll() is None:
            self._process.terminate()

    def ended(self) -> bool:
        """Whether the process has ended."""
        if self._process.poll() is None:
            return False
        self._log.close()
        return True

    @property
    def status(self) -> int:
        """The exit status of an ended process."""
        return int(self._process.returncode)

    def best_loss(self) -> float | None:
        """The validation loss of a finished training, in nats."""
        summary = run_files.training_summary(self.config.run.dir)
        best = summary.validation.best if summary else None
        return math.log(best.perplexity) if best else None

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (self.config.run.dir / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "nothing was logged")


def _end_with_parent() -> None:
    """Makes the kernel stop the training, as a signal would, if the sweep dies: run again, the sweep continues it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def pin(slot: int, jobs: int, processes: int, devices: list[str]) -> dict[str, str]:
    """The environment by which trainings that run at the same time share the machine: a GPU each, or the processors."""
    own = {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot * processes : (slot + 1) * processes])} if devices else {}
    return share_of_threads(jobs * processes) | own

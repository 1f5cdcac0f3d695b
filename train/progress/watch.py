"""What a training says while it runs: to the terminal, to `metrics.jsonl` and `samples.jsonl`, and to MLflow."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from packlm import dataset, tracking
from packlm.base import files
from packlm.base.log import progress
from packlm.config import Config

from .. import record
from ..state import TrainState
from . import samples_page
from .metrics import Meter, MetricsWriter, memory_mb

log = logging.getLogger("packlm")

QUIET_SECONDS = 60
"""Where there is no terminal to draw a bar on, a line says this often how far the training is."""


class Progress:
    """Rank 0's voice, and every rank's meter. Made by `watch`."""

    def __init__(
        self, folder: Path, every: int, device: torch.device, position: TrainState, total_steps: int, recorder: tracking.Recorder, bar: Any
    ):  # fmt: skip
        self.folder, self.every, self.device, self.position, self.total_steps = folder, every, device, position, total_steps
        self.recorder, self.bar = recorder, bar
        self.meter = Meter(position.meter)
        self.metrics = MetricsWriter(folder / "metrics.jsonl", position.step, position.validated)
        self._spoken = time.monotonic()
        self._since, self._from_step = time.monotonic(), position.step

    def updated(self, lr: float, epoch: float, may_skip: bool) -> None:
        """After each update: a line of metrics if it is time for one.

        Args:
            epoch: passes over the training split so far.
            may_skip: whether updates that are left out are part of the method, and so worth a number.
        """
        position = self.position
        self.bar.update()
        if position.step % self.every and position.step != self.total_steps:
            return
        values = self.meter.read() | {"train/lr": lr, "train/epoch": epoch, "train/memory_mb": memory_mb(self.device)}
        values |= {"train/skipped_steps": position.skipped} if may_skip else {}
        self.metrics.write(position.step, position.tokens, values)
        state = (
            f"loss {values['train/loss']:.3f}, perplexity {values['train/perplexity']:,.1f}, "
            f"{values['train/tokens_per_second']:,.0f} tokens/s, lr {lr:.3g}, {values['train/memory_mb']:,.0f} MB"
        )
        self.bar.set_postfix_str(state)
        now = time.monotonic()
        if self.bar.disable and now > self._spoken + QUIET_SECONDS:
            left = (now - self._since) / (position.step - self._from_step) * (self.total_steps - position.step)
            log.info("step %s of %s: %s, %s left", f"{position.step:,}", f"{self.total_steps:,}", state, duration(left))
            self._spoken = now

    def validated(self, loss: float, perplexity: float, better: bool) -> None:
        """After each validation."""
        self.metrics.write(self.position.step, self.position.tokens, {"validation/loss": loss, "validation/perplexity": perplexity})
        log.info("step %s: validation perplexity %.2f%s", f"{self.position.step:,}", perplexity, " (best)" if better else "")

    def samples(self, texts: list[str]) -> None:
        """Adds texts to `samples.jsonl`, and to one table for all validations, for MLflow and as a page."""
        path, step = self.folder / "samples.jsonl", self.position.step
        measured = self.position.validation.get("last" if step else "before")
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() and step else []
        kept = [line for line in map(json.loads, before) if line["step"] < step]
        about = {"step": step, "perplexity": measured["perplexity"] if measured else None}
        kept += [about | {"sample": number, "text": text} for number, text in enumerate(texts, 1)]
        files.write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        files.write_text(path.with_suffix(".html"), samples_page.page(kept))
        self.recorder.table("samples.json", {key: [line.get(key) for line in kept] for key in ("step", "perplexity", "sample", "text")})
        self.recorder.artifact(path.with_suffix(".html"))

    def ended(self) -> None:
        """After the last update: the final numbers and the figure."""
        position = self.position
        numbers = {f"validation/perplexity_{name}": value["perplexity"] for name, value in position.validation.items()}
        numbers |= {"train/steps": position.step, "train/tokens": position.tokens, "train/seconds": position.seconds}
        self.recorder.summary(numbers)
        from .curves import loss_figure  # matplotlib takes a second to import, which only the end needs

        self.recorder.figure("loss.png", loss_figure(self.metrics.path))


@contextmanager
def watch(
    config: Config, manifest: dataset.Manifest, made: dict[str, Any], device: torch.device, position: TrainState, total_steps: int,
    fresh: bool,
) -> Iterator[Progress]:  # fmt: skip
    """Opens the records of a training for the block.

    Args:
        made: what is to be said of the training besides its settings.
        fresh: a training that stood here was thrown away, and so this one's record is a new one.
    """
    folder = config.run.dir / "train"
    with (
        tracking.stage(config, "train", fresh) as recorder,
        progress(total=total_steps, initial=position.step, unit="step") as bar,
    ):
        recorder.params(record.inputs_of(config, manifest) | made)
        recorder.summary({"parameters": made["parameters"]})
        recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), "training")
        watching = Progress(folder, config.train.log_every, device, position, total_steps, recorder, bar)
        recorder.mirror(watching.metrics.path)
        yield watching


def duration(seconds: float) -> str:
    """`2 h 05 min`, `7 min`, `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if math.floor(seconds) >= 120 else f"{seconds:.0f} s"

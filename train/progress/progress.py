"""Reports a training on rank 0: to the log and a progress bar, to `metrics.jsonl` and `samples.jsonl`, and to MLflow."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from packlm import tracking
from packlm.base.log import progress as progress_bar
from packlm.config import Config
from packlm.tracking import metric_names

from .. import record
from ..batches.mixture import DatasetMixture
from ..state import TrainState, ValidationResult
from ..step import Update
from .metrics import Meter, MetricsWriter, memory_mb
from .remaining import RemainingTime
from .samples import add_samples

log = logging.getLogger("packlm")

LOG_SECONDS = 60
"""Without a terminal to show a progress bar on, a line is logged this often."""
BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""tqdm's without its remaining time, which knows of no validation."""


class Progress:
    """Reports the updates, validations and samples of a training. Opened by `report`."""

    def __init__(
        self, config: Config, device: torch.device, state: TrainState, remaining: RemainingTime, recorder: tracking.Recorder, bar: Any
    ):  # fmt: skip
        self.settings, self.device, self.state, self.remaining = config.train, device, state, remaining
        self.folder, self.recorder, self.bar = config.run.dir / "train", recorder, bar
        self.meter = Meter(state.metric_sums)
        self.metrics = MetricsWriter(self.folder / "metrics.jsonl", state.step, state.validated)
        self._updated = self._logged = time.monotonic()

    def log(self, message: str, *arguments: object) -> None:
        """Logs a message that begins with epoch and step."""
        epoch = self.state.epoch + (self.state.step_in_epoch > 0)  # counted from 1; after the last step of an epoch it is still that one
        log.info(f"epoch %d/%d, step %s: {message}", epoch, self.settings.epochs, f"{self.state.step:,}", *arguments)

    def updated(self, update: Update, epochs: float) -> None:
        """After each update, with the passes over the training split so far: writes a line of metrics every `train.log_every` steps."""
        state, now = self.state, time.monotonic()
        self.meter.add(update, epochs)
        self.remaining.updated(now - self._updated)
        self._updated = now
        self.bar.update()
        if state.step % self.settings.log_every and state.step != self.remaining.total_steps:
            return
        values = self.write_metrics()
        text = (
            f"loss {values['train/loss']:.3f}, perplexity {values['train/perplexity']:,.1f}, lr {update.lr:.3g}, "
            f"{values['train/tokens_per_second']:,.0f} tokens/s, {values['train/memory_mb']:,.0f} MB, "
            f"{duration(self.remaining.seconds(state.step))} left"
        )
        self.bar.set_postfix_str(text)
        if self.bar.disable and now > self._logged + LOG_SECONDS:
            self.log("%s", text)
            self._logged = now

    def write_metrics(self) -> dict[str, float]:
        """Writes a line of metrics over the updates since the last one; returns its values."""
        values = self.meter.read() | {"train/memory_mb": memory_mb(self.device)}
        values |= {"train/skipped_steps": self.state.skipped} if self.settings.precision == "fp16" else {}
        self.metrics.write(self.state.step, self.state.tokens, values)
        return values

    def stopped_early(self) -> None:
        """After the last validation of a training that ends before its last step: writes the line of metrics that is not due otherwise."""
        self.log("stopped early: no improvement in %d validations (train.patience)", self.settings.patience)
        if self.meter.sums.updates:
            self.write_metrics()

    def validation_took(self, seconds: float) -> None:
        """After each validation and its samples: excludes its time from the speed."""
        self.remaining.validated(seconds)
        self.meter.restart_clock()
        self._updated = time.monotonic()

    def validated(self, result: ValidationResult, best: bool) -> None:
        """After each validation."""
        self.metrics.write(
            self.state.step, self.state.tokens, {"validation/loss": result.loss, "validation/perplexity": result.perplexity}
        )  # fmt: skip
        self.log("validation perplexity %s%s", perplexity_text(result.perplexity), " (best)" if best else "")

    def sampled(self, texts: list[str]) -> None:
        """After each validation: writes the sampled texts to `samples.jsonl`, `samples.html` and MLflow."""
        path, state = self.folder / "samples.jsonl", self.state
        result = state.validation.last if state.step else state.validation.before
        rows = add_samples(path, state.step, result.perplexity if result else None, texts)
        self.recorder.table("samples.json", {key: [row[key] for row in rows] for key in ("step", "perplexity", "sample", "text")})
        self.recorder.artifact(path.with_suffix(".html"))

    def ended(self) -> None:
        """After the last update: records the final numbers and the loss curves."""
        state = self.state
        numbers = {metric_names.STEPS: state.step, metric_names.TOKENS: state.tokens, metric_names.SECONDS: round(state.seconds, 1)}
        best = {metric_names.BEST_PERPLEXITY: state.validation.best.perplexity} if state.validation.best else {}
        self.recorder.summary(best | numbers)
        from .curves import loss_figure  # matplotlib takes a second to import, and only the end needs it

        self.recorder.figure("loss.png", loss_figure(self.metrics.path))


@contextmanager
def report(
    config: Config, recorded: Config, mixture: DatasetMixture, facts: dict[str, Any], device: torch.device, state: TrainState,
    remaining: RemainingTime, fresh: bool,
) -> Iterator[Progress]:  # fmt: skip
    """Opens the reports of a training for the block.

    Args:
        recorded: the configuration of the run in MLflow.
        facts: recorded as parameters besides the settings.
        fresh: starts a new run in MLflow, in place of that of a training that was thrown away.
    """
    with (
        tracking.stage(recorded, "train", fresh, config.run.dir) as recorder,
        progress_bar(total=remaining.total_steps, initial=state.step, unit="step", bar_format=BAR_FORMAT) as bar,
    ):
        recorder.params(record.inputs_of(config, mixture.manifest) | facts)
        recorder.summary({metric_names.PARAMETERS: facts["parameters"]})
        for part in mixture.parts:
            recorder.dataset(part.folder.name, part.manifest.digests["content"], str(part.folder), "training")
        progress = Progress(config, device, state, remaining, recorder, bar)
        recorder.follow_metrics(progress.metrics.path)
        yield progress


def perplexity_text(perplexity: float) -> str:
    """`93.21`, or `1.3e+120` for one that no model should have."""
    return f"{perplexity:.2f}" if perplexity < 1e7 else f"{perplexity:.3g}"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `7 min`, `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if math.floor(seconds) >= 120 else f"{seconds:.0f} s"

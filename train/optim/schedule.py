"""The learning rate of each step, and early stopping: functions of the step, the epoch and the validations so far."""

import math
from typing import Any

from packlm import config


class Schedule:
    """A linear warm-up, then `train.schedule`.

    constant: `lr`. linear and cosine: down to `lr * lr_floor` at the last step, along a line or half a cosine (Loshchilov and Hutter
    2017, without restarts). inverse_sqrt: `lr * sqrt(warmup / step)` (Vaswani et al. 2017). wsd: `lr`, and a line down to `lr * lr_floor`
    in the last `decay_share` of all steps (warm-up, stable, decay; Hu et al. 2024). plateau: times `lr_factor` for each validation without
    improvement. zaremba: times `lr_factor` for each epoch from the `flat_epochs`-th on (Zaremba et al. 2014).

    With `window_drawn`, the learning rate of a step is proportional to the length of its window (Merity et al. 2017, section 5).
    """

    def __init__(self, settings: config.Train, total_steps: int):
        self.settings, self.total_steps = settings, total_steps
        self.best: float | None = None
        self.reductions = 0
        self.since_best = 0

    def lr(self, step: int, epoch: int, window: int = 0) -> float:
        """The learning rate of the update that follows `step` others.

        Args:
            epoch: counted from 0.
            window: length of the step's window of streams (`Segments.window`); 0 for other batches.
        """
        settings = self.settings
        if step < settings.warmup_steps:
            lr = settings.lr * (step + 1) / (settings.warmup_steps + 1)
        else:
            lr = settings.lr * self._factor(step, epoch)
        return lr * (window / settings.window) if settings.window_drawn and window else lr

    def _factor(self, step: int, epoch: int) -> float:
        """What `train.schedule` multiplies the learning rate by, after the warm-up."""
        settings = self.settings
        progress = min(1.0, (step - settings.warmup_steps) / max(1, self.total_steps - settings.warmup_steps))
        match settings.schedule:
            case "linear":
                return self._above_floor(1 - progress)
            case "cosine":
                return self._above_floor(0.5 * (1 + math.cos(math.pi * progress)))
            case "inverse_sqrt":
                return math.sqrt(max(1, settings.warmup_steps) / max(1, step))
            case "wsd":
                return self._above_floor(min(1.0, (self.total_steps - step) / (settings.decay_share * self.total_steps)))
            case "plateau":
                return settings.lr_factor**self.reductions
            case "zaremba":
                return settings.lr_factor ** max(0, epoch + 1 - settings.flat_epochs)
            case _:
                return 1.0

    @property
    def last_stable_step(self) -> int:
        """wsd: the last update with the whole learning rate."""
        return math.floor(self.total_steps * (1 - self.settings.decay_share) + 1e-9) + 1

    def _above_floor(self, fraction: float) -> float:
        return self.settings.lr_floor + (1 - self.settings.lr_floor) * fraction

    def validated(self, loss: float) -> bool:
        """Records a validation; returns whether it is the best so far."""
        if self.best is None or loss < self.best:
            self.best, self.since_best = loss, 0
            return True
        self.since_best += 1
        if self.settings.schedule == "plateau":
            self.reductions += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no improvement."""
        return 0 < self.settings.patience <= self.since_best

    def state(self) -> dict[str, Any]:
        """The values to be saved in a checkpoint."""
        return {"best": self.best, "reductions": self.reductions, "since_best": self.since_best}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the values of `state`."""
        self.best, self.reductions, self.since_best = state["best"], state["reductions"], state["since_best"]

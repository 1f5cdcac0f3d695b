"""How the learning rate moves, and when to stop: functions of the step, the epoch and the validations so far."""

import math
from typing import Any

from packlm import config


class Schedule:
    """The learning rate of each step: a linear warm-up, then `train.schedule`.

    constant: `lr`. linear and cosine: down to `lr * lr_floor` at the last step, along a line or half a cosine (Loshchilov and Hutter
    2017, without restarts). inverse_sqrt: `lr * sqrt(warmup / step)` (Vaswani et al. 2017). wsd: `lr`, and a line down to `lr * lr_floor`
    in the last `decay_share` of the steps (warm-up, stable, decay; Hu et al. 2024). plateau: times `lr_factor` for each validation that
    brought no new best. zaremba: times `lr_factor` for each epoch from the `flat_epochs`-th on (Zaremba et al. 2014).
    """

    def __init__(self, settings: config.Train, total_steps: int):
        self.settings, self.total_steps = settings, total_steps
        self.best: float | None = None
        self.reductions = 0
        self.since_best = 0

    def lr(self, step: int, epoch: int) -> float:
        """The learning rate of the update after `step` others, in an epoch counted from 0."""
        settings = self.settings
        if step < settings.warmup_steps:
            return settings.lr * (step + 1) / (settings.warmup_steps + 1)
        done = min(1.0, (step - settings.warmup_steps) / max(1, self.total_steps - settings.warmup_steps))
        match settings.schedule:
            case "linear":
                share = self._above_floor(1 - done)
            case "cosine":
                share = self._above_floor(0.5 * (1 + math.cos(math.pi * done)))
            case "inverse_sqrt":
                share = math.sqrt(max(1, settings.warmup_steps) / max(1, step))
            case "wsd":
                share = self._above_floor(min(1.0, (1 - done) / settings.decay_share))
            case "plateau":
                share = settings.lr_factor**self.reductions
            case "zaremba":
                share = settings.lr_factor ** max(0, epoch + 1 - settings.flat_epochs)
            case _:
                share = 1.0
        return settings.lr * share

    def _above_floor(self, share: float) -> float:
        return self.settings.lr_floor + (1 - self.settings.lr_floor) * share

    def validated(self, loss: float) -> bool:
        """Takes note of a validation; says whether it is the best so far."""
        if self.best is None or loss < self.best:
            self.best, self.since_best = loss, 0
            return True
        self.since_best += 1
        if self.settings.schedule == "plateau":
            self.reductions += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether `patience` validations in a row brought no new best."""
        return 0 < self.settings.patience <= self.since_best

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"best": self.best, "reductions": self.reductions, "since_best": self.since_best}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.best, self.reductions, self.since_best = state["best"], state["reductions"], state["since_best"]

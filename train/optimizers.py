"""Optimizers, and how the learning rate moves."""

import math
from typing import Any

import torch
from torch import nn

from pipeline import config


def build(settings: config.Train, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `train.optimizer`; its learning rate is set before every step."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)


class Schedule:
    """The learning rate of each step: a linear warm-up, then `train.schedule`.

    constant: `lr`. cosine: half a cosine from `lr` to `lr * lr_floor` at the last step (Loshchilov and Hutter 2017, without restarts).
    plateau: `lr` times `plateau_factor` for each validation that brought no new best.
    """

    def __init__(self, settings: config.Train, total_steps: int):
        self.settings, self.total_steps = settings, total_steps
        self.best: float | None = None
        self.reductions = 0

    def lr(self, step: int) -> float:
        """The learning rate of the update after `step` others."""
        settings = self.settings
        if step < settings.warmup_steps:
            return settings.lr * (step + 1) / (settings.warmup_steps + 1)
        if settings.schedule == "cosine":
            done = (step - settings.warmup_steps) / max(1, self.total_steps - settings.warmup_steps)
            return settings.lr * (settings.lr_floor + (1 - settings.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
        return settings.lr * settings.plateau_factor**self.reductions

    def validated(self, loss: float) -> None:
        """Takes note of a validation."""
        if self.best is None or loss < self.best:
            self.best = loss
        elif self.settings.schedule == "plateau":
            self.reductions += 1

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "reductions": self.reductions}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.reductions = state["best"], state["reductions"]

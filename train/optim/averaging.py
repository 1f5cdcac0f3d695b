"""Averages of the weights over updates."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from packlm import config


class Average:
    """The average of a model's weights, which replaces them in validation and export: none, exponential, or uniform from a trigger on.

    `train.ema`: exponential moving average, whose decay rises as (1 + n) / (10 + n) over the first updates n. NT-ASGD (Merity et al. 2017,
    algorithm 1): plain SGD until a validation is worse than the best of all but the last `nt_interval`, then the mean of all weights since.
    """

    def __init__(self, settings: config.Train, model: nn.Module):
        self.settings = settings
        self.names, self.weights = zip(*model.named_parameters(), strict=True)
        self.mean: list[Tensor] | None = None
        self.count = 0
        """Updates averaged."""
        self.losses: list[float] = []
        """NT-ASGD: validation losses before the trigger."""
        if settings.ema:
            self._start()

    def _start(self) -> None:
        self.mean, self.count = [weight.detach().clone() for weight in self.weights], 1

    @torch.no_grad()
    def updated(self) -> None:
        """Adds the weights after an update."""
        if self.mean is None:
            return
        self.count += 1
        ema = min(self.settings.ema, self.count / (9 + self.count))
        torch._foreach_lerp_(self.mean, self.weights, 1 - ema if self.settings.ema else 1 / self.count)

    def validated(self, loss: float) -> bool:
        """Records a validation; returns whether averaging starts with it."""
        if self.settings.optimizer != "nt-asgd" or self.mean is not None:
            return False
        triggered = loss > min(self.losses[: -self.settings.nt_interval], default=math.inf)
        self.losses.append(loss)
        if triggered:
            self._start()
        return triggered

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block, the average replaces the weights of the model, if there is one."""
        if self.mean is None:
            yield
            return
        weights = [weight.detach().clone() for weight in self.weights]
        self._copy(self.mean)
        try:
            yield
        finally:
            self._copy(weights)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)

    def tensors(self) -> dict[str, Tensor]:
        """The average, by the names of the weights, to be saved in a checkpoint."""
        return dict(zip(self.names, self.mean, strict=True)) if self.mean else {}

    def state(self) -> dict[str, Any]:
        """The other values to be saved in a checkpoint."""
        return {"count": self.count, "losses": self.losses}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Restores the values of `tensors` and `state`, after the model's weights."""
        self.count, self.losses = state["count"], list(state["losses"])
        if self.count:  # without tensors averaging started after the checkpoint's tensors were written
            named = zip(self.names, self.weights, strict=True)
            self.mean = [tensors.get(name, weight).detach().to(weight.device, copy=True) for name, weight in named]

"""Averages of the weights over updates, which often predict better than the last weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from packlm import config


class Average:
    """The mean of a model's weights, to be validated and kept in their place: none, exponential, or even from a trigger on.

    `train.ema`: exponential moving average, whose decay rises as (1 + n) / (10 + n) over the first updates n. NT-ASGD (Merity et al. 2017,
    algorithm 1): plain SGD until a validation is worse than the best of all but the `nt_interval` before it; then the mean of all weights
    from there on.
    """

    def __init__(self, settings: config.Train, model: nn.Module):
        self.settings = settings
        self.names, self.weights = zip(*model.named_parameters(), strict=True)
        self.mean: list[Tensor] | None = None
        self.count = 0
        """Weights that went into the mean."""
        self.losses: list[float] = []
        """NT-ASGD: all validations before the trigger."""
        if settings.ema:
            self._begin()

    def _begin(self) -> None:
        self.mean, self.count = [weight.detach().clone() for weight in self.weights], 1

    @torch.no_grad()
    def updated(self) -> None:
        """Takes in the weights after an update."""
        if self.mean is None:
            return
        self.count += 1
        ema = min(self.settings.ema, self.count / (9 + self.count))
        torch._foreach_lerp_(self.mean, self.weights, 1 - ema if self.settings.ema else 1 / self.count)

    def validated(self, loss: float) -> bool:
        """Takes note of a validation; says whether averaging begins with it."""
        if self.settings.optimizer != "nt-asgd" or self.mean is not None:
            return False
        begins = bool(self.losses[: -self.settings.nt_interval]) and loss > min(self.losses[: -self.settings.nt_interval])
        self.losses.append(loss)
        if begins:
            self._begin()
        return begins

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the model has the mean for its weights, if there is one."""
        if self.mean is None:
            yield
            return
        own = [weight.detach().clone() for weight in self.weights]
        self._set(self.mean)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)

    def tensors(self) -> dict[str, Tensor]:
        """The mean, as a checkpoint keeps it: by the names of the weights."""
        return dict(zip(self.names, self.mean, strict=True)) if self.mean else {}

    def state(self) -> dict[str, Any]:
        """Everything else that a checkpoint keeps."""
        return {"count": self.count, "losses": self.losses}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes up what `tensors` and `state` gave, the model having its weights already."""
        self.count, self.losses = state["count"], list(state["losses"])
        if self.count:  # without tensors it has just begun, after the checkpoint's tensors were written
            of_names = zip(self.names, self.weights, strict=True)
            self.mean = [tensors.get(name, weight).detach().to(weight.device, copy=True) for name, weight in of_names]

"""The arithmetic of a training: `train.precision`.

float32, float64    everything in that type
medium              float32, whose matrix products may round their factors to bfloat16 (TF32 on GPUs)
bf16, fp16          products in that type (autocast), weights, sums and the softmax in float32; fp16 scales the loss so that small
                    gradients do not vanish, and skips the steps in which large ones overflow (Micikevicius et al. 2018)
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def round_products(allowed: bool) -> None:
    """Sets, for this process, whether products of float32 may round their factors: bfloat16 on CPUs, TF32 on GPUs."""
    torch.set_float32_matmul_precision("medium" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed  # cuDNN's recurrences have a switch of their own, which is on unless told otherwise


class Precision:
    """How losses are computed and gradients scaled."""

    def __init__(self, name: str, device: torch.device):
        """Also sets, for this process, how float32 products may round."""
        self._rounds = name == "medium"
        round_products(self._rounds)
        self.device, self.reduced = device, _REDUCED.get(name)
        self.weights = torch.float64 if name == "float64" else torch.float32
        """The type of the weights."""
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, self.reduced) if self.reduced else nullcontext()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block, as in validation, products of float32 are not rounded."""
        round_products(False)
        try:
            yield
        finally:
            round_products(self._rounds)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those there are."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizers: list[Optimizer]) -> None:
        """Gives the gradients their true size; they are infinite or NaN where they overflowed."""
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(self, optimizers: list[Optimizer], skipped: bool) -> None:
        """The optimizers' step, unless it is to be skipped because a gradient overflowed; then the next one is scaled less."""
        if not skipped:
            for optimizer in optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()

    @property
    def may_skip(self) -> bool:
        """Whether gradients that are not finite are part of the method."""
        return self.scaler.is_enabled()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return self.scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.scaler.load_state_dict(state)

"""`train.precision`: the arithmetic of training.

float32, float64    everything in that type
medium              float32, whose matrix products may round their factors to bfloat16 (TF32 on GPUs)
auto                bf16 where the devices have instructions for it, else float32
bf16, fp16          products in that type (autocast), weights, sums and softmax in float32; fp16 scales the loss so that small gradients
                    do not vanish, and skips the steps in which large ones overflow (Micikevicius et al. 2018)
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MIN_SCALE = 1e-4
"""Scale of the loss from which on a gradient that is not finite is not the scale's fault; the minimum of fairseq."""
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def allow_rounding(allowed: bool) -> None:
    """Sets for this process whether products of float32 may round their factors: to bfloat16 on CPUs, TF32 on GPUs."""
    torch.set_float32_matmul_precision("medium" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed  # cuDNN's recurrent kernels have a switch of their own, which is on by default


class Precision:
    """How losses are computed and gradients scaled."""

    def __init__(self, name: str, device: torch.device, has_bfloat16: bool = False):
        """Also sets for this process how float32 products may round.

        `has_bfloat16`: whether the devices of all processes, which must agree, have instructions for products of bfloat16.
        """
        self.name = name if name != "auto" else "bf16" if has_bfloat16 else "float32"
        """The setting, as it is here."""
        self.multiplies_bfloat16 = self.name == "bf16" and has_bfloat16
        self._rounds = name == "medium"
        allow_rounding(self._rounds)
        self._device, self._autocast_dtype = device, _AUTOCAST.get(self.name)
        self.weights_dtype = torch.float64 if name == "float64" else torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self._device.type, self._autocast_dtype) if self._autocast_dtype else nullcontext()

    @contextmanager
    def without_rounding(self) -> Iterator[None]:
        """Within the block, as in validation, products of float32 are not rounded."""
        allow_rounding(False)
        try:
            yield
        finally:
            allow_rounding(self._rounds)

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a loss, scaled."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizers: list[Optimizer]) -> None:
        """Divides the gradients by the scale; they are infinite or NaN where they overflowed."""
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(self, optimizers: list[Optimizer], skipped: bool) -> None:
        """Makes the optimizers' step, unless it is skipped because a gradient overflowed, and adjusts the scale."""
        if not skipped:
            for optimizer in optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()

    @property
    def may_skip(self) -> bool:
        """Whether a step whose gradient is not finite is skipped instead of being an error: while a smaller scale may help."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > MIN_SCALE

    def state(self) -> dict[str, Any]:
        """The values to be saved in a checkpoint."""
        return self.scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the values of `state`."""
        self.scaler.load_state_dict(state)

"""How the gradient of a global batch comes together: from one pass or several, on one rank or many.

A global batch is run in parts, `passes` to a rank. Usually gradients are added up within a rank and averaged by DDP while the last pass
is still going backward. With `fixed_parts` the parts are as many whatever the number of ranks, each one's gradient is kept apart, and
all are added up in the order of the parts: floating point sums depend on their order, so only this is the same to the last bit on any
number of ranks.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from packlm.base.errors import RequestError
from packlm.distributed import Ranks


class GradientReduction:
    """The parts of a global batch, those of this rank, and the sum of their gradients."""

    def __init__(self, model: nn.Module, ranks: Ranks, passes: int, fixed_parts: int = 0):
        """
        Args:
            passes: parts that each rank runs, one after the other.
            fixed_parts: parts altogether, to be added up in order; 0: `passes` a rank, in any order.

        Raises:
            RequestError: `fixed_parts` cannot be shared equally among the ranks.
        """
        if fixed_parts % ranks.world:
            raise RequestError(f"train.bitwise: {fixed_parts} parts cannot be shared equally by {ranks.world} processes; give a multiple")
        self._model, self._ranks, self._in_order = model, ranks, fixed_parts > 0
        self.parts = fixed_parts or ranks.world * passes
        self.module = model
        if ranks.world > 1 and not self._in_order:
            self.module = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.weight = 1.0 if self._in_order else float(ranks.world)
        """What a part's loss is multiplied by, since DDP averages over ranks."""

    @property
    def mine(self) -> range:
        """The parts that this rank runs."""
        each = self.parts // self._ranks.world
        return range(self._ranks.rank * each, (self._ranks.rank + 1) * each)

    def gradients(self, backward: Callable[[int], None]) -> None:
        """All ranks: leaves the gradient of the whole global batch in the weights' `grad`.

        `backward` runs `module` forward and backward on a part, which adds the part's gradient to `grad`.
        """
        self._model.zero_grad()
        if self._in_order:
            self._put(self._summed_in_order([self._apart(backward, part) for part in self.mine]))
            return
        for part in self.mine:
            last = part == self.mine[-1]
            with nullcontext() if last or not isinstance(self.module, DistributedDataParallel) else self.module.no_sync():
                backward(part)

    def _apart(self, backward: Callable[[int], None], part: int) -> Tensor:
        """The gradient of one part, all weights end to end."""
        self._model.zero_grad()
        backward(part)
        return torch.cat([weight.grad.flatten() for weight in self._model.parameters() if weight.grad is not None])

    def _summed_in_order(self, own: list[Tensor]) -> Tensor:
        gathered = [self._ranks.gather_equal(gradient) for gradient in own]  # [pass][rank]
        total = gathered[0][0].clone()
        for part in range(1, self.parts):
            total += gathered[part % len(own)][part // len(own)]
        return total

    def _put(self, gradient: Tensor) -> None:
        weights = list(self._model.parameters())
        for weight, own in zip(weights, gradient.split([weight.numel() for weight in weights]), strict=True):
            weight.grad = own.view_as(weight)

"""How the gradient of a global batch is summed: over one pass or several, on one rank or many.

A global batch is run in parts, one or more per rank. By default gradients accumulate within a rank, and DDP averages them over the ranks
during the last backward pass. With `fixed_parts` the number of parts does not depend on the number of ranks, the gradient of each part is
kept apart, and all are summed in the order of the parts: floating-point sums depend on their order, so only this is the same to the last
bit on any number of ranks.
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
            passes: parts per rank, run one after the other.
            fixed_parts: parts in total, summed in order; 0 for `passes` per rank in any order.

        Raises:
            RequestError: `fixed_parts` is not a multiple of the number of ranks.
        """
        if fixed_parts % ranks.world:
            raise RequestError(f"train.bitwise: {fixed_parts} parts cannot be shared equally by {ranks.world} processes; give a multiple")
        self._model, self._ranks, self._in_order = model, ranks, fixed_parts > 0
        self.num_parts = fixed_parts or ranks.world * passes
        per_rank = self.num_parts // ranks.world
        self.local_parts = range(ranks.rank * per_rank, (ranks.rank + 1) * per_rank)
        """The parts that this rank runs."""
        self.module = model
        """What to call forward on: the model, wrapped by DDP where DDP reduces."""
        if ranks.world > 1 and not self._in_order:
            self.module = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.loss_scale = 1.0 if self._in_order else float(ranks.world)
        """Factor of each part's loss, because DDP averages over ranks where a sum is meant."""

    def run(self, backward: Callable[[int], None]) -> None:
        """All ranks: computes the gradient of the whole global batch into the `grad` of the weights.

        `backward(part)` runs `module` forward and backward on a part, which adds the part's gradient to `grad`.
        """
        self._model.zero_grad()
        if self._in_order:
            self._set_gradient(self._sum_in_order([self._gradient_of(backward, part) for part in self.local_parts]))
            return
        for part in self.local_parts:
            last = part == self.local_parts[-1]
            with nullcontext() if last or not isinstance(self.module, DistributedDataParallel) else self.module.no_sync():
                backward(part)

    def _gradient_of(self, backward: Callable[[int], None], part: int) -> Tensor:
        """The gradient of one part, all weights end to end."""
        self._model.zero_grad()
        backward(part)
        return torch.cat([weight.grad.flatten() for weight in self._model.parameters() if weight.grad is not None])

    def _sum_in_order(self, local: list[Tensor]) -> Tensor:
        gathered = [self._ranks.all_gather(gradient) for gradient in local]  # [pass][rank]
        total = gathered[0][0].clone()
        for part in range(1, self.num_parts):
            total += gathered[part % len(local)][part // len(local)]
        return total

    def _set_gradient(self, gradient: Tensor) -> None:
        weights = list(self._model.parameters())
        for weight, values in zip(weights, gradient.split([weight.numel() for weight in weights]), strict=True):
            weight.grad = values.view_as(weight)

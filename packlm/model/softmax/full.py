"""The full softmax: P(id) = softmax(W h + b)[id].

Shapes: P rows (tokens), D width, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from packlm.model.softmax import loss
from packlm.model.softmax.loss import RowScores

Logits = Callable[[Tensor], Tensor]
"""rows [P, D] -> logits [P, V], whose softmax is the distribution of the next id."""


class Band(NamedTuple):
    """Some of the ids, which have a softmax of their own."""

    rows: slice | Tensor
    """Indices of the rows whose prediction needs it."""
    softmax: tuple[Tensor, Tensor, Tensor]
    """Targets of these rows within it, weight, bias."""


class Softmax(nn.Linear):
    """The distribution of the next id, by a product of each row with all of the vocabulary; calling it gives the logits."""

    def initialize(self) -> None:
        """Draws initial weights."""
        nn.init.uniform_(self.weight, -0.1, 0.1)
        nn.init.zeros_(self.bias)

    def summed_loss(self, rows: Tensor, targets: Tensor, logits_bytes: int) -> Tensor:
        """The summed negative log-likelihood of targets [P], in nats: a float64 scalar (`loss.summed_loss`)."""
        return loss.summed_loss(rows, targets, self.weight, self.bias, logits_bytes)

    def row_losses(self, rows: Tensor, targets: Tensor, logits_bytes: int) -> Tensor:
        """The negative log-likelihood of each target, [P] in nats; no gradient."""
        return loss.row_losses(rows, targets, self.weight, self.bias, logits_bytes)

    def row_scores(self, rows: Tensor, targets: Tensor, logits_bytes: int, marked: Tensor | None = None) -> RowScores:
        """Loss, entropy and rank of each target; no gradient. `marked`: [V] bool."""
        return loss.row_scores(rows, targets, self.weight, self.bias, logits_bytes, marked)

    def logits_by(self, affine: Callable[[Tensor, Tensor], Logits]) -> Logits:
        """The logits by another way of computing rows @ weight.T + bias: `affine(weight, bias)` is that function of rows."""
        return affine(self.weight, self.bias)

    def bands(self, targets: Tensor) -> list[Band]:
        """The softmaxes that the loss of some rows consists of: one."""
        return [Band(slice(None), (targets, self.weight, self.bias))]

    @property
    def products_per_row(self) -> int:
        """Multiplications of each row in training, at least."""
        return self.weight.numel()

"""The loss of a projection onto a large vocabulary, without ever holding all its logits.

Shapes: P rows (tokens), D width, V vocabulary.

Logits are made a chunk of rows at a time. The gradient of a summed negative log-likelihood needs nothing but the chunk's own
probabilities, so a chunk leaves its share of the gradients behind while it is still in the cache, and the backward pass has only to
scale them. (The usual form writes logits, log-probabilities and two gradients of the size [P, V] to memory and reads them again.)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from packlm.model.matmul import pad_columns

DEFAULT_BYTES = 30 << 20
"""Memory for the logits of a chunk, where nobody says otherwise. From 32 MiB on, glibc asks the system for fresh pages each time."""


def summed_loss(rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, most_bytes: int = DEFAULT_BYTES) -> Tensor:
    """The sum over all rows of -log softmax(rows @ weight.T + bias)[target], in nats: a float64 scalar.

    Args:
        rows: [P, D]; targets: [P] ids; weight: [V, D]; bias: [V].
        most_bytes: what the logits of a chunk may take up; a chunk is at least one row.

    Under autocast the matrix products run in its type; the softmax and all sums do not.
    """
    product_type = rows.dtype
    if torch.is_autocast_enabled(rows.device.type):
        product_type = torch.get_autocast_dtype(rows.device.type)
    if not torch.is_grad_enabled():
        return row_losses(rows, targets, weight, bias, most_bytes, product_type).sum(dtype=torch.float64)
    return _SummedLoss.apply(rows, targets, weight, bias, most_bytes, product_type)


def row_losses(
    rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, most_bytes: int = DEFAULT_BYTES, product_type: torch.dtype | None = None
) -> Tensor:
    """The loss of each row, [P] in nats; no gradient. Arguments as of `summed_loss`."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        weight_ = weight.to(product_type or rows.dtype)
        chunks = [
            _chunk(some, wanted, weight_, bias)[0]
            for some, wanted in zip(*_chunks(most_bytes, weight, rows.to(weight_.dtype), targets), strict=True)
        ]
        return torch.cat(chunks)


class RowScores(NamedTuple):
    """What a projection says of each row, each [P]; losses and entropies in nats."""

    losses: Tensor
    """-log P(target)."""
    entropies: Tensor
    """Of the distribution over all ids."""
    likelier: Tensor
    """How many ids are likelier than the target: 0 where the likeliest was right."""
    marked: Tensor
    """log of the probability that the marked ids have together; 0 (certain) where none are marked."""


def row_scores(
    rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, most_bytes: int = DEFAULT_BYTES, marked: Tensor | None = None
) -> RowScores:
    """What there is to know of each row; no gradient. Arguments as of `summed_loss`; `marked`: [V] bool, ids to sum up."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        weights = None if marked is None else marked.to(bias.dtype)
        found = [
            scores_of((some @ weight.T).to(bias.dtype).add_(bias), wanted, weights)
            for some, wanted in zip(*_chunks(most_bytes, weight, rows.to(weight.dtype), targets), strict=True)
        ]
        return RowScores(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def scores_of(logits: Tensor, targets: Tensor, marked: Tensor | None) -> RowScores:
    """What there is to know of rows by their logits [P, V], which are overwritten; `marked`: [V], 1 for the ids to sum up, else 0."""
    wanted = logits.gather(1, targets[:, None])
    likelier = (logits > wanted).sum(1)
    highest = logits.amax(1, keepdim=True)
    shifted = logits.sub_(highest)
    powers = shifted.exp()
    totals = powers.sum(1)
    log_totals = totals.log()
    losses = log_totals - (wanted - highest).squeeze(1)
    # H = log Z - sum p * logit, with logits from the highest down.
    entropies = log_totals - torch.linalg.vecdot(powers, shifted) / totals
    return RowScores(losses, entropies, likelier, torch.zeros_like(losses) if marked is None else (powers @ marked / totals).log())


class _SummedLoss(torch.autograd.Function):
    """Makes the gradients on the way forward, and scales them on the way back."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, most_bytes: int, product_type: torch.dtype
    ) -> Tensor:  # fmt: skip
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        row_gradient, bias_gradient = torch.empty_like(rows), torch.zeros_like(bias)
        with torch.autocast(rows.device.type, enabled=False):
            weight_, rows_ = weight.to(product_type), rows.to(product_type)
            wide = pad_columns(rows_)
            weight_gradient = weight.new_zeros(len(weight), wide.shape[1])
            for some, wide_some, wanted, gradient in zip(*_chunks(most_bytes, weight, rows_, wide, targets, row_gradient), strict=True):
                losses, probabilities = _chunk(some, wanted, weight_, bias)
                total += losses.sum(dtype=torch.float64)
                # The gradient of the logits: probabilities, less one at the target.
                probabilities.scatter_add_(1, wanted[:, None], probabilities.new_full((len(wanted), 1), -1.0))
                bias_gradient += probabilities.sum(0)
                slopes = probabilities.to(product_type)
                if product_type == weight.dtype:
                    torch.mm(slopes, weight_, out=gradient)
                    weight_gradient.addmm_(slopes.T, wide_some)
                else:  # sums over chunks stay in the weights' own type
                    gradient.copy_(slopes @ weight_)
                    weight_gradient += slopes.T @ wide_some
        ctx.save_for_backward(row_gradient, weight_gradient[:, : rows.shape[1]], bias_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias = ctx.saved_tensors
        return rows * scale, None, weight * scale, bias * scale, None, None


def _chunks(most_bytes: int, weight: Tensor, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Each of some tensors of P rows, cut alike: into the fewest parts of like size whose logits fit."""
    fits = max(1, most_bytes // (weight.shape[0] * weight.element_size()))
    parts = max(1, -(-len(tensors[0]) // fits))
    return [tensor.tensor_split(parts) for tensor in tensors]


def _chunk(rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row of a chunk [p], and the probabilities it gives to every id [p, V], in the type of the bias."""
    logits = (rows @ weight.T).to(bias.dtype).add_(bias)
    wanted = logits.gather(1, targets[:, None])
    highest = logits.amax(1, keepdim=True)
    powers = logits.sub_(highest).exp_()
    totals = powers.sum(1, keepdim=True)
    return (totals.log() + highest - wanted).squeeze(1), powers.div_(totals)

"""Softmax cross-entropy over a large vocabulary, in chunks of rows: without ever holding all logits.

Shapes: P rows (tokens), p rows of a chunk, D width, V vocabulary.

The gradient of a summed negative log-likelihood needs nothing but a chunk's own probabilities, so it is computed in the forward pass while
they are in the cache, and the backward pass only scales it. (The usual form writes logits, log-probabilities and two gradients of the size
[P, V] to memory and reads them again.)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from packlm.model.matmul import pad_columns

DEFAULT_BYTES = 30 << 20
"""Memory for the logits of a chunk. From 32 MiB on, glibc asks the system for fresh pages each time."""


def summed_loss(rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, logits_bytes: int = DEFAULT_BYTES) -> Tensor:
    """The sum over all rows of -log softmax(rows @ weight.T + bias)[target], in nats: a float64 scalar.

    Under autocast the matrix products are computed in its type; softmax and sums are not.

    Args:
        rows: [P, D]; targets: [P] ids; weight: [V, D]; bias: [V].
        logits_bytes: memory for the logits of a chunk, which is at least one row.
    """
    product_type = rows.dtype
    if torch.is_autocast_enabled(rows.device.type):
        product_type = torch.get_autocast_dtype(rows.device.type)
    if not torch.is_grad_enabled():
        return row_losses(rows, targets, weight, bias, logits_bytes, product_type).sum(dtype=torch.float64)
    return _SummedLoss.apply(rows, targets, weight, bias, logits_bytes, product_type)


def row_losses(
    rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, logits_bytes: int = DEFAULT_BYTES, product_type: torch.dtype | None = None
) -> Tensor:
    """The loss of each row, [P] in nats; no gradient. Arguments as of `summed_loss`."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        weight_ = weight.to(product_type or rows.dtype)
        chunks = zip(*_chunks(logits_bytes, weight, rows.to(weight_.dtype), targets), strict=True)
        return torch.cat([_losses_and_probabilities(rows_, targets_, weight_, bias)[0] for rows_, targets_ in chunks])


class RowScores(NamedTuple):
    """Scores of the rows' distributions and targets, each [P]; losses and entropies in nats."""

    losses: Tensor
    """-log P(target)."""
    entropies: Tensor
    """Of the distribution over all ids."""
    likelier: Tensor
    """Number of ids that are more probable than the target: 0 where the most likely id was right."""
    marked: Tensor
    """log of the total probability of the marked ids; 0 (certain) if none are marked."""


def row_scores(
    rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, logits_bytes: int = DEFAULT_BYTES, marked: Tensor | None = None
) -> RowScores:
    """The scores of each row; no gradient. Arguments as of `summed_loss`; `marked`: [V] bool."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        mask = None if marked is None else marked.to(bias.dtype)
        scores = [
            scores_from_logits((rows_ @ weight.T).to(bias.dtype).add_(bias), targets_, mask)
            for rows_, targets_ in zip(*_chunks(logits_bytes, weight, rows.to(weight.dtype), targets), strict=True)
        ]
        return RowScores(*(torch.cat(chunks) for chunks in zip(*scores, strict=True)))


def scores_from_logits(logits: Tensor, targets: Tensor, mask: Tensor | None) -> RowScores:
    """The scores of rows with logits [P, V], which are overwritten; `mask`: [V], 1 for marked ids, else 0."""
    of_targets = logits.gather(1, targets[:, None])
    likelier = (logits > of_targets).sum(1)
    highest = logits.amax(1, keepdim=True)
    shifted = logits.sub_(highest)
    powers = shifted.exp()
    totals = powers.sum(1)
    log_totals = totals.log()
    losses = log_totals - (of_targets - highest).squeeze(1)
    # H = log Z - sum p * logit, where logits are relative to the highest.
    entropies = log_totals - torch.linalg.vecdot(powers, shifted) / totals
    return RowScores(losses, entropies, likelier, torch.zeros_like(losses) if mask is None else (powers @ mask / totals).log())


class _SummedLoss(torch.autograd.Function):
    """Computes the gradients in the forward pass, and scales them in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, logits_bytes: int, product_type: torch.dtype
    ) -> Tensor:  # fmt: skip
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        d_rows, d_bias = torch.empty_like(rows), torch.zeros_like(bias)
        with torch.autocast(rows.device.type, enabled=False):
            weight_, rows = weight.to(product_type), rows.to(product_type)
            padded = pad_columns(rows)
            d_weight = weight.new_zeros(len(weight), padded.shape[1])
            for rows_, padded_, targets_, d_rows_ in zip(*_chunks(logits_bytes, weight, rows, padded, targets, d_rows), strict=True):
                losses, probabilities = _losses_and_probabilities(rows_, targets_, weight_, bias)
                total += losses.sum(dtype=torch.float64)
                # The gradient of the logits: probabilities, less one at the target.
                d_logits = probabilities.scatter_add_(1, targets_[:, None], probabilities.new_full((len(targets_), 1), -1.0))
                d_bias += d_logits.sum(0)
                d_logits = d_logits.to(product_type)
                if product_type == weight.dtype:
                    torch.mm(d_logits, weight_, out=d_rows_)
                    d_weight.addmm_(d_logits.T, padded_)
                else:  # sums over chunks stay in the type of the weights
                    d_rows_.copy_(d_logits @ weight_)
                    d_weight += d_logits.T @ padded_
        ctx.save_for_backward(d_rows, d_weight[:, : rows.shape[1]], d_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        d_rows, d_weight, d_bias = ctx.saved_tensors
        return d_rows * scale, None, d_weight * scale, d_bias * scale, None, None


def _chunks(logits_bytes: int, weight: Tensor, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Splits each of the tensors of P rows into the fewest chunks, of about equal size, whose logits fit."""
    max_rows = max(1, logits_bytes // (weight.shape[0] * weight.element_size()))
    count = max(1, -(-len(tensors[0]) // max_rows))
    return [tensor.tensor_split(count) for tensor in tensors]


def _losses_and_probabilities(rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row of a chunk [p], and its probabilities of all ids [p, V], in the type of the bias."""
    logits = (rows @ weight.T).to(bias.dtype).add_(bias)
    of_targets = logits.gather(1, targets[:, None])
    highest = logits.amax(1, keepdim=True)
    powers = logits.sub_(highest).exp_()
    totals = powers.sum(1, keepdim=True)
    return (totals.log() + highest - of_targets).squeeze(1), powers.div_(totals)

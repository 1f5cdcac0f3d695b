"""Softmax cross-entropy over a large vocabulary, in chunks of rows: without ever holding all logits.

Shapes: P rows (tokens), p rows of a chunk, D width, V vocabulary.

The gradient of a summed negative log-likelihood needs nothing but a chunk's own probabilities, so it is computed in the forward pass while
they are in the cache, and the backward pass only scales it. (The usual form writes logits, log-probabilities and two gradients of the size
[P, V] to memory and reads them again.)
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from packlm.model.products import matmul, sum_of_outer_products

DEFAULT_BYTES = 30 << 20
"""Memory for the logits of a chunk. From 32 MiB on, glibc asks the system for fresh pages each time."""
_CACHE_BYTES = 1 << 21
"""On CPUs, memory for the rows of a chunk that run through all operations of the softmax before the next ones do."""


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
        losses, done = torch.empty_like(targets, dtype=bias.dtype), 0
        for logits, targets_ in blocks_of_logits(rows, weight.to(product_type or rows.dtype), bias, logits_bytes, targets):
            losses[done : done + len(targets_)] = _losses_and_probabilities(logits, targets_, bias)[0]
            done += len(targets_)
        return losses


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
        blocks = blocks_of_logits(rows, weight, bias, logits_bytes, targets)
        return joined((scores_from_logits(logits + bias, targets_, mask) for logits, targets_ in blocks), targets, bias.dtype)


def joined(blocks: Iterable[RowScores], targets: Tensor, dtype: torch.dtype) -> RowScores:
    """The scores of blocks of rows as those of all rows, with these targets [P]; losses and entropies have type `dtype`.

    They are copied block by block: results kept between the logits of two chunks would split the memory that the next logits need, and
    that of all chunks was in use at once, sometimes.
    """
    scores, done = RowScores(*(torch.empty_like(targets, dtype=dtype) for _ in RowScores._fields)), 0
    scores = scores._replace(likelier=torch.empty_like(targets))
    for block in blocks:
        for values, part in zip(scores, block, strict=True):
            values[done : done + len(part)] = part
        done += len(block.losses)
    return scores


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
        d_rows, d_weight, d_bias = torch.empty_like(rows), None, torch.zeros_like(bias)
        with torch.autocast(rows.device.type, enabled=False):
            weight_, rows = weight.to(product_type), rows.to(product_type)
            for rows_, targets_, d_rows_ in _chunks(logits_bytes, weight_, rows, targets, d_rows):
                logits = matmul(rows_, weight_.T)
                total += replace_by_gradient(logits, targets_, bias, d_bias).sum(dtype=torch.float64)
                d_rows_.copy_(matmul(logits, weight_))
                d_weight_ = sum_of_outer_products(logits, rows_).to(weight.dtype)  # sums over chunks stay in the type of the weights
                d_weight = d_weight_ if d_weight is None else d_weight.add_(d_weight_)
        ctx.save_for_backward(d_rows, d_weight, d_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        d_rows, d_weight, d_bias = ctx.saved_tensors
        return d_rows * scale, None, d_weight * scale, d_bias * scale, None, None


def _chunks(logits_bytes: int, weight: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Splits the tensors of P rows alike into the fewest chunks, of about equal size, whose logits fit."""
    max_rows = max(1, logits_bytes // (weight.shape[0] * weight.element_size()))
    count = max(1, -(-len(tensors[0]) // max_rows))
    return zip(*(tensor.tensor_split(count) for tensor in tensors), strict=True)


def blocks_of_logits(rows: Tensor, weight: Tensor, bias: Tensor, logits_bytes: int, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Logits [b, V], without the bias, of a few rows at a time, and these rows of other tensors [P, ...]."""
    for rows_, *others_ in _chunks(logits_bytes, weight, rows.to(weight.dtype), *others):
        yield from _cache_blocks(bias, matmul(rows_, weight.T), *others_)


def _cache_blocks(bias: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Splits tensors of p rows, such as logits [p, V], into blocks of rows that fit the cache."""
    return _chunks(_CACHE_BYTES if bias.device.type == "cpu" else 2**62, bias, *tensors)


def replace_by_gradient(logits: Tensor, targets: Tensor, bias: Tensor, d_bias: Tensor) -> Tensor:
    """Replaces logits [p, V], without the bias, by the gradient of the summed loss: probabilities, less one at the target. Adds its sum
    over rows to `d_bias`, and returns the loss of each row [p].

    Block by block of rows, which stay in the processor's cache from the first operation on them to the last.
    """
    losses = []
    for logits_, targets_ in _cache_blocks(bias, logits, targets):
        losses_, gradient = _losses_and_probabilities(logits_, targets_, bias)
        gradient.scatter_add_(1, targets_[:, None], gradient.new_full((len(targets_), 1), -1.0))
        d_bias += gradient.sum(0)
        logits_.copy_(gradient)
        losses.append(losses_)
    return torch.cat(losses)


def _losses_and_probabilities(logits: Tensor, targets: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row [p] of logits [p, V], without the bias, and the probabilities of all ids [p, V], in the type of the bias."""
    logits = logits + bias
    probabilities = torch.softmax(logits, 1)
    # The likeliest id's probability, unlike the target's, never underflows.
    log_totals = logits.amax(1) - probabilities.amax(1).log()
    return log_totals - logits.gather(1, targets[:, None]).squeeze(1), probabilities

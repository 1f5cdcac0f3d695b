"""Sampling of token ids: temperature, filters (logits warpers of Hugging Face transformers), and the sample itself.

Shapes: R rows, V vocabulary.
"""

import torch
from torch import Tensor

from packlm.config import Generate

PARTIAL_SORT = 1024
"""Ids that are sorted first in search of the smallest set with some probability; all are sorted only where these do not suffice."""
UNFILTERED = Generate()


def sample_ids(log_probs: Tensor, uniform: Tensor, settings: Generate = UNFILTERED) -> Tensor:
    """Samples an id for each row from the filtered distribution, by inverting its cumulative distribution function.

    Args:
        log_probs: [R, V] ln P of each id.
        uniform: [R] float64 random numbers in (0, 1).
        settings: temperature and filters; by default none.

    Returns [R] ids.
    """
    probabilities, ids = filtered(log_probs, settings)
    cumulative = probabilities.cumsum(-1)
    # Slightly below the total even for the largest uniform number, so that the index found has a probability above zero.
    target = uniform[:, None] * cumulative[:, -1:] * (1 - 2**-52)
    indices = torch.searchsorted(cumulative, target, right=True)
    indices = indices.clamp(max=cumulative.shape[-1] - 1)  # beyond the end only if a probability is NaN: noticed later
    return (indices if ids is None else ids.gather(-1, indices)).squeeze(-1)


def filtered(log_probs: Tensor, settings: Generate) -> tuple[Tensor, Tensor | None]:
    """Applies temperature and filters to ln P [R, V] (-inf: forbidden). The filters act in this order, each on the renormalized output of
    the one before.

    temperature: divides the logits.
    top_k: keeps the k most likely ids; 0 keeps all.
    top_p: keeps the smallest set of most likely ids with at least this total probability (nucleus sampling, Holtzman et al. 2020).
    min_p: keeps ids at least min_p times as likely as the most likely one (Nguyen et al. 2024).
    typical_p: keeps the smallest set of ids with at least this total probability, in the order of the distance of their surprisal from the
        entropy (locally typical sampling, Meister et al. 2023).

    Returns ([R, K] float64 probabilities, unnormalized; [R, K] their ids, None if they are all ids in order).
    """
    scaled, ids = log_probs.double() / settings.temperature, None
    if 0 < settings.top_k < scaled.shape[1]:
        scaled, ids = scaled.topk(settings.top_k, dim=-1)
    probabilities = scaled.softmax(-1)
    if settings.top_p < 1:
        probabilities = _smallest_set(probabilities, -probabilities, settings.top_p)
    if settings.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < settings.min_p * probabilities.amax(-1, keepdim=True), 0.0)
    if settings.typical_p < 1:
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        entropies = torch.special.entr(probabilities).sum(-1, keepdim=True)
        probabilities = _smallest_set(probabilities, (probabilities.log() + entropies).abs(), settings.typical_p)
    return probabilities, ids


def _smallest_set(probabilities: Tensor, keys: Tensor, mass: float) -> Tensor:
    """Sets probabilities [R, K] to 0 except for the smallest set with at least this mass, taken in ascending order of keys [R, K].

    Sorting a whole vocabulary takes longer than the model does, so the `PARTIAL_SORT` smallest keys of a row are tried first.
    """
    kept, rows = torch.zeros_like(probabilities), torch.arange(len(probabilities), device=probabilities.device)
    count = probabilities.shape[1]
    for width in (min(PARTIAL_SORT, count), count):
        order = keys[rows].topk(width, dim=-1, largest=False).indices
        values = probabilities[rows].gather(-1, order)
        total = values.cumsum(-1)
        done = (total[:, -1] >= mass) | (width == count)
        values = values.masked_fill(total - values >= mass, 0.0)
        kept[rows[done]] = kept[rows[done]].scatter(-1, order[done], values[done])
        rows = rows[~done]
        if not len(rows):
            break
    return kept

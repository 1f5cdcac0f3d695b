"""Drawing ids from the model's distribution, or from what filters leave of it.

Shapes: R rows, V vocabulary.
"""

import torch
from torch import Tensor

FEW = 1024
"""Ids among which the fewest that have some probability are looked for before all are sorted."""


def draw(
    log_probs: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
    typical_p: float = 1.0,
) -> Tensor:  # fmt: skip
    """Draws an id for each row from what the filters leave (`filtered`), by inverting the cumulative distribution.

    Args:
        uniform: [R] float64 in (0, 1).

    Returns [R] ids.
    """
    probabilities, ids = filtered(log_probs, temperature, top_k, top_p, min_p, typical_p)
    cumulative = probabilities.cumsum(-1)
    # Slightly below the total even for the largest uniform number, so that the place found has a probability above zero.
    target = uniform[:, None] * cumulative[:, -1:] * (1 - 2**-52)
    places = torch.searchsorted(cumulative, target, right=True)
    places = places.clamp(max=cumulative.shape[-1] - 1)  # beyond the end only where a probability is not a number: noticed later
    return (places if ids is None else ids.gather(-1, places)).squeeze(-1)


def filtered(
    log_probs: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, typical_p: float
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """What is left to draw from after the filters, each of which takes up what the one before left, made to sum to 1 again.

    Args:
        log_probs: [R, V] log P of each id; -inf where it is out of the question.
        temperature: divides the logits.
        top_k: keeps the so many likeliest ids; 0 keeps all.
        top_p: keeps the fewest ids, the likeliest first, that together have at least this probability (Holtzman et al. 2020).
        min_p: keeps the ids at least so many times as likely as the likeliest (Nguyen et al. 2024).
        typical_p: keeps the fewest ids that together have at least this probability, those first whose surprisal is nearest the
            entropy (Meister et al. 2023).

    Returns ([R, K] float64 probabilities, up to a factor a row; [R, K] their ids, None where they are all ids in order).
    """
    scaled, ids = log_probs.double() / temperature, None
    if 0 < top_k < scaled.shape[1]:
        scaled, ids = scaled.topk(top_k, dim=-1)
    probabilities = scaled.softmax(-1)
    if top_p < 1:
        probabilities = _fewest(probabilities, -probabilities, top_p)
    if min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), 0.0)
    if typical_p < 1:
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        entropies = torch.special.entr(probabilities).sum(-1, keepdim=True)
        probabilities = _fewest(probabilities, (probabilities.log() + entropies).abs(), typical_p)
    return probabilities, ids


def _fewest(probabilities: Tensor, keys: Tensor, mass: float) -> Tensor:
    """Probabilities [R, K], 0 but for the fewest that together have the mass, those with the smallest keys [R, K] first.

    Sorting a whole vocabulary takes longer than the model does, so a row is first looked for among its `FEW` smallest keys.
    """
    kept, rows = torch.zeros_like(probabilities), torch.arange(len(probabilities), device=probabilities.device)
    count = probabilities.shape[1]
    for width in (min(FEW, count), count):
        places = keys[rows].topk(width, dim=-1, largest=False).indices
        found = probabilities[rows].gather(-1, places)
        total = found.cumsum(-1)
        done = (total[:, -1] >= mass) | (width == count)
        found = found.masked_fill(total - found >= mass, 0.0)
        kept[rows[done]] = kept[rows[done]].scatter(-1, places[done], found[done])
        rows = rows[~done]
        if not len(rows):
            break
    return kept

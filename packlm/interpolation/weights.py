"""Weights of a linear interpolation, by expectation maximization (Jelinek and Mercer 1980).

Shapes: N targets, M models.
"""

import numpy as np

MAX_ITERATIONS = 2000
TOLERANCE = 1e-9
"""Change of the mean log-likelihood, in nats, below which the weights stay as they are."""

MINIMUM = 1e-6
"""No model's weight is less: what it alone expects stays possible."""


def tune(probabilities: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[M] the weights that make the targets most likely.

    Args:
        probabilities: [N, M] of each target by each model.
        known: [N, M] bool: whether the model knew anything. Only targets for which all did count.
    """
    rows = probabilities[known.all(1)]
    weights, before = np.full(probabilities.shape[1], 1 / probabilities.shape[1]), -np.inf
    for _ in range(MAX_ITERATIONS if len(rows) else 0):
        shares = rows * weights
        totals = shares.sum(1, keepdims=True)
        weights = (shares / totals).mean(0)
        likelihood = float(np.log(totals).mean())
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
    weights = weights.clip(MINIMUM)
    return weights / weights.sum()


def losses(probabilities: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[N] -ln P of each target by the mixture; models that know nothing leave their share to the others."""
    return np.log((known * weights).sum(1)) - np.log((probabilities * weights).sum(1))


def cross_validated_loss(probabilities: np.ndarray, known: np.ndarray) -> float:
    """The mean loss where each half of the targets is interpolated with the weights tuned on the other half."""
    middle = len(probabilities) // 2
    halves = [slice(0, middle), slice(middle, len(probabilities))]
    tuned = [tune(probabilities[half], known[half]) for half in halves]
    sums = [losses(probabilities[half], known[half], other).sum() for half, other in zip(halves, reversed(tuned), strict=True)]
    return float(sum(sums)) / len(probabilities)

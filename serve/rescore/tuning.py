"""Weights that minimise the word error rate of n-best lists, exactly along each of them (Och 2003, "Minimum error rate training").

A hypothesis has the total `fixed + weights @ features`, and the first of those with the highest total wins its list. Seen along one
weight, the others being held, every total is a line, so the winner changes only where two lines of a list cross, and the errors of all
lists are constant between these places: all of them are looked at. One weight is thus tuned to the true minimum; several are taken in
turns until none of them gains, which finds a minimum along each weight that need not be the best of all.

Shapes: K hypotheses of a list, F features and weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NARROWEST = 1e-9
"""Stretches between two crossings that are relatively narrower are passed over: the rounding of totals would blur them."""


@dataclass(frozen=True)
class Candidates:
    """A list of hypotheses with a reference."""

    fixed: np.ndarray
    """[K] float64: what no weight changes."""
    features: np.ndarray
    """[K, F] float64."""
    errors: np.ndarray
    """[K] int64: word errors of each."""


def winner(fixed: np.ndarray, features: np.ndarray, weights: np.ndarray) -> int:
    """The hypothesis with the highest total, the first of them in a tie. Shapes as in `Candidates`."""
    return int(np.argmax(totals(fixed, features, weights)))


def totals(fixed: np.ndarray, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[K] `fixed + features @ weights`, added up so that hypotheses with equal numbers have equal totals to the last bit."""
    for column, weight in zip(features.T, weights.tolist(), strict=True):
        fixed = fixed + column * weight
    return fixed


def total_errors(lists: Sequence[Candidates], weights: np.ndarray) -> int:
    """The word errors of the winners."""
    return sum(int(one.errors[winner(one.fixed, one.features, weights)]) for one in lists)


def tune(lists: Sequence[Candidates], weights: np.ndarray, tuned: Sequence[int], signed: Sequence[int] = ()) -> np.ndarray:
    """[F] weights with fewer word errors, found from those given, weight by weight.

    Of weights with equally few errors the smallest is taken (0, where that is one of them).

    Args:
        weights: [F] where to start; those not tuned stay.
        tuned: which weights to change, in this order.
        signed: those of them that may be negative.
    """
    weights = weights.astype(np.float64)
    fewest = total_errors(lists, weights)
    while True:
        before = fewest
        for index in tuned:
            value, found = best_along(lists, weights, index, index in signed)
            # Moving without a gain would let the weights wander for ever; at first it leads to the smallest.
            if found < fewest or (found == fewest and abs(value) < abs(weights[index])):
                weights[index], fewest = value, found
        if fewest == before:
            return weights


def best_along(lists: Sequence[Candidates], weights: np.ndarray, index: int, signed: bool) -> tuple[float, int]:
    """(the value of one weight with the fewest errors, those errors), the other weights held; from 0 on unless `signed`."""
    lowest = -np.inf if signed else 0.0
    start, tied = 0, False
    places, changes = [np.empty(0)], [np.empty(0)]
    held = weights.copy()
    held[index] = 0.0
    for one in lists:
        crossings, winners = envelope(totals(one.fixed, one.features, held), one.features[:, index])
        first = int(np.searchsorted(crossings, lowest, side="right"))
        tied |= bool((crossings == lowest).any())
        start += int(one.errors[winners[first]])
        places.append(crossings[first:])
        changes.append(np.diff(one.errors[winners[first:]]))
    at, where = np.unique(np.concatenate(places), return_inverse=True)
    errors = start + np.concatenate([[0], np.cumsum(np.bincount(where, np.concatenate(changes), len(at)))]).astype(np.int64)
    lefts, rights = np.concatenate([[lowest], at]), np.concatenate([at, [np.inf]])
    nearest = np.maximum(np.maximum(lefts, -rights), 0.0)
    wide = rights - lefts > NARROWEST * np.maximum(1.0, nearest)
    fewest = errors[wide].min()
    good = np.flatnonzero(wide & (errors == fewest))
    best = int(good[np.argmin(nearest[good])])
    left, right = float(lefts[best]), float(rights[best])
    closed = left == lowest and not tied
    return _inside(left, right, closed), int(fewest)


def envelope(intercepts: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest of some lines, from left to right.

    Returns ([J] rising places where the highest line changes, [J + 1] the line to the left of each and the last one).
    """
    # Of parallel lines only the highest, and of equal ones the first, is ever the winner.
    order = np.lexsort((np.arange(len(slopes)), -intercepts, slopes))
    kept = order[np.concatenate([[True], np.diff(slopes[order]) > 0])]
    lines: list[int] = []
    crossings: list[float] = []
    for line in kept.tolist():
        while lines:
            place = float((intercepts[lines[-1]] - intercepts[line]) / (slopes[line] - slopes[lines[-1]]))
            if not crossings or place > crossings[-1]:
                crossings.append(place)
                break
            lines.pop()
            crossings.pop()
        lines.append(line)
    return np.array(crossings), np.array(lines)


def _inside(left: float, right: float, closed: bool) -> float:
    """A value in a stretch (whose left end is in it where `closed`): 0 if that is one, else the middle; of an endless stretch, a value
    twice as far from 0 as its end."""
    if left < 0 < right or (closed and left == 0):
        return 0.0
    if np.isfinite(left) and np.isfinite(right):
        return left / 2 + right / 2
    return 2 * left or 1.0 if np.isfinite(left) else 2 * right or -1.0

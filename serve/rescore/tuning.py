"""Weights that minimize the word error rate of n-best lists, by exact line search along each weight (Och 2003, "Minimum error rate
training in statistical machine translation").

A hypothesis has the total `fixed + weights @ features`; the first one with the highest total wins its list. As a function of one weight,
with the others fixed, every total is a line, so the winner changes only where two lines of a list cross, and the errors of all lists are
constant between crossings: all intervals are tried. This finds the true minimum along one weight. Several weights are tuned in turn until
none of them gains, which finds a minimum along each weight that need not be the global one.

Shapes: K hypotheses of a list, F features and weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NARROWEST = 1e-9
"""Intervals between two crossings that are relatively narrower are skipped: totals are rounded more coarsely."""


@dataclass(frozen=True)
class Candidates:
    """A list of hypotheses with a reference."""

    fixed: np.ndarray
    """[K] float64: the part of the total without a weight."""
    features: np.ndarray
    """[K, F] float64."""
    errors: np.ndarray
    """[K] int64: word errors of each hypothesis."""


def winner(fixed: np.ndarray, features: np.ndarray, weights: np.ndarray) -> int:
    """The index of the first hypothesis with the highest total. Shapes as in `Candidates`."""
    return int(np.argmax(totals(fixed, features, weights)))


def totals(fixed: np.ndarray, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[K] `fixed + features @ weights`, summed in an order that gives equal hypotheses equal totals to the last bit."""
    for column, weight in zip(features.T, weights.tolist(), strict=True):
        fixed = fixed + column * weight
    return fixed


def total_errors(lists: Sequence[Candidates], weights: np.ndarray) -> int:
    """The sum of the winners' word errors."""
    return sum(int(one.errors[winner(one.fixed, one.features, weights)]) for one in lists)


def tune(lists: Sequence[Candidates], weights: np.ndarray, tuned: Sequence[int], signed: Sequence[int] = ()) -> np.ndarray:
    """[F] weights with fewer word errors, tuned one after the other. Of equally good values of a weight, the one nearest to 0 is taken.

    Args:
        weights: [F] initial weights.
        tuned: indices of the weights to tune, in this order.
        signed: indices of the weights that may be negative.
    """
    weights = weights.astype(np.float64)
    fewest = total_errors(lists, weights)
    while True:
        before = fewest
        for index in tuned:
            value, errors = best_along(lists, weights, index, index in signed)
            # Without a gain a weight moves only towards 0, so that the loop ends.
            if errors < fewest or (errors == fewest and abs(value) < abs(weights[index])):
                weights[index], fewest = value, errors
        if fewest == before:
            return weights


def best_along(lists: Sequence[Candidates], weights: np.ndarray, index: int, signed: bool) -> tuple[float, int]:
    """(value of one weight with the fewest errors, those errors), the other weights being fixed; not negative unless `signed`."""
    lowest = -np.inf if signed else 0.0
    start, tied = 0, False
    all_crossings, changes = [np.empty(0)], [np.empty(0)]
    others = weights.copy()
    others[index] = 0.0
    for one in lists:
        crossings, winners = envelope(totals(one.fixed, one.features, others), one.features[:, index])
        first = int(np.searchsorted(crossings, lowest, side="right"))
        tied |= bool((crossings == lowest).any())
        start += int(one.errors[winners[first]])
        all_crossings.append(crossings[first:])
        changes.append(np.diff(one.errors[winners[first:]]))
    bounds, which = np.unique(np.concatenate(all_crossings), return_inverse=True)
    errors = start + np.concatenate([[0], np.cumsum(np.bincount(which, np.concatenate(changes), len(bounds)))]).astype(np.int64)
    lefts, rights = np.concatenate([[lowest], bounds]), np.concatenate([bounds, [np.inf]])
    nearest = np.maximum(np.maximum(lefts, -rights), 0.0)
    wide = rights - lefts > NARROWEST * np.maximum(1.0, nearest)
    fewest = errors[wide].min()
    good = np.flatnonzero(wide & (errors == fewest))
    best = int(good[np.argmin(nearest[good])])
    left, right = float(lefts[best]), float(rights[best])
    closed = left == lowest and not tied
    return _inside(left, right, closed), int(fewest)


def envelope(intercepts: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper envelope of lines, from left to right.

    Returns ([J] ascending crossings at which the highest line changes, [J + 1] the highest line between them).
    """
    # Only the highest of parallel lines, and the first of equal ones, can win.
    order = np.lexsort((np.arange(len(slopes)), -intercepts, slopes))
    candidates = order[np.concatenate([[True], np.diff(slopes[order]) > 0])]
    lines: list[int] = []
    crossings: list[float] = []
    for line in candidates.tolist():
        while lines:
            crossing = float((intercepts[lines[-1]] - intercepts[line]) / (slopes[line] - slopes[lines[-1]]))
            if not crossings or crossing > crossings[-1]:
                crossings.append(crossing)
                break
            lines.pop()
            crossings.pop()
        lines.append(line)
    return np.array(crossings), np.array(lines)


def _inside(left: float, right: float, closed: bool) -> float:
    """A value in an interval (which contains its left end if `closed`): 0 if possible, else the middle; in an unbounded interval, twice
    its bound."""
    if left < 0 < right or (closed and left == 0):
        return 0.0
    if np.isfinite(left) and np.isfinite(right):
        return left / 2 + right / 2
    return 2 * left or 1.0 if np.isfinite(left) else 2 * right or -1.0

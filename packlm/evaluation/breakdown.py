"""An evaluation by its parts, for the report: sentences by length, tokens by frequency, documents one by one, and how sure the whole is."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from packlm.evaluation import bootstrap
from packlm.evaluation.baselines import Baselines
from packlm.evaluation.details import Array, Grouping, GroupSums
from packlm.evaluation.reports import perplexity

SHOWN = 5
"""Documents named at each end."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def breakdown(
    sums: dict[str, GroupSums],
    groupings: dict[str, Grouping],
    ids: Array,
    beside: Baselines | None,
    names: Callable[[Sequence[int]], list[str]],
) -> dict[str, Any]:
    """The parts of a report.

    Args:
        sums, groupings: by `document`, `sentence_length` and `token`, as of `details`.
        ids: [N] the targets, in order; wanted with `beside` alone.
        beside: what is known of them without a model.
        names: the names of documents, given their numbers.
    """
    documents, tokens = sums["document"], sums["token"]
    total, known = tokens.tokens.sum(), np.array(groupings["token"].names) != "unknown"
    found = bootstrap.interval(documents.nll, documents.tokens)
    return {
        "perplexity_known": perplexity(_ratio(tokens.nll[known], tokens.tokens[known])),
        "accuracy_at_1": float(tokens.first.sum() / total),
        "accuracy_at_5": float(tokens.among_five.sum() / total),
        "interval": found
        and {
            "level": bootstrap.LEVEL, "resampled": "documents",
            "loss_per_token": list(found), "perplexity": [perplexity(loss) for loss in found],
        },
        "by_sentence_length": _rows(sums["sentence_length"], groupings["sentence_length"], ids, beside),
        "by_token": _rows(tokens, groupings["token"], ids, beside),
        "by_document": _documents(documents, names),
    }  # fmt: skip


def _rows(sums: GroupSums, grouping: Grouping, ids: Array, beside: Baselines | None) -> list[dict[str, Any]]:
    """A row for each group that has tokens."""
    losses: dict[str, Array] = {}
    if beside:
        groups = grouping.find(np.arange(len(ids)), ids)
        losses = {name: np.bincount(groups, values, len(grouping.names)) for name, values in beside.losses.items() if name != "uniform"}
    rows = []
    for group in np.flatnonzero(sums.tokens).tolist():
        count = sums.tokens[group]
        rows.append(
            {
                "group": grouping.names[group],
                "tokens": int(count),
                "loss_per_token": float(sums.nll[group] / count),
                "perplexity": perplexity(sums.nll[group] / count),
                "accuracy_at_1": float(sums.first[group] / count),
                "accuracy_at_5": float(sums.among_five[group] / count),
                **{f"perplexity_{name}": perplexity(values[group] / count) for name, values in losses.items()},
            }
        )
    return rows


def _documents(sums: GroupSums, names: Callable[[Sequence[int]], list[str]]) -> dict[str, Any]:
    losses = sums.nll / sums.tokens
    order = np.argsort(losses, kind="stable")
    found: dict[str, Any] = {"perplexity_at": {f"{share:.0%}": perplexity(np.quantile(losses, share)) for share in QUANTILES}}
    for end, some in (("easiest", order[:SHOWN]), ("hardest", order[::-1][:SHOWN])):
        values = zip(names(some.tolist()), sums.tokens[some].astype(int).tolist(), losses[some].tolist(), strict=True)
        found[end] = [{"document": name, "tokens": tokens, "perplexity": perplexity(loss)} for name, tokens, loss in values]
    bins = min(40, 2 + 2 * math.isqrt(len(losses)))
    edges = np.geomspace(max(1.0, np.exp(losses.min()) * 0.999), np.exp(losses.max()) * 1.001, bins + 1)
    counts = np.histogram(np.exp(losses), edges)[0]
    return found | {"histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def _ratio(nll: Array, tokens: Array) -> float:
    return float(nll.sum() / tokens.sum()) if tokens.any() else 0.0

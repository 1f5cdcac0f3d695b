"""The breakdown of an evaluation for its report: by sentence length, token frequency and document, with a confidence interval."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from packlm.evaluation.baselines import Baselines
from packlm.evaluation.details import Array, Grouping, GroupSums
from packlm.model.finite import perplexity

NAMED_DOCUMENTS = 5
"""Easiest and hardest documents that are named."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RESAMPLES = 1000
LEVEL = 0.95


def breakdown(
    sums: dict[str, GroupSums],
    groupings: dict[str, Grouping],
    ids: Array,
    baselines: Baselines | None,
    document_names: Callable[[Sequence[int]], list[str]],
) -> dict[str, Any]:
    """The entries of a report besides its totals.

    Args:
        sums, groupings: by `document`, `sentence_length` and `token`, see `details`.
        ids: [N] the targets, in order; read only with `baselines`.
        document_names: the names of documents, given their indices.
    """
    documents, tokens = sums["document"], sums["token"]
    total, known = tokens.tokens.sum(), np.array(groupings["token"].names) != "unknown"
    interval = confidence_interval(documents.nll, documents.tokens)
    known_loss = float(tokens.nll[known].sum() / tokens.tokens[known].sum()) if tokens.tokens[known].any() else 0.0
    return {
        "perplexity_known": perplexity(known_loss),
        "accuracy_at_1": float(tokens.top_1.sum() / total),
        "accuracy_at_5": float(tokens.top_5.sum() / total),
        "interval": interval
        and {
            "level": LEVEL, "resampled": "documents",
            "loss_per_token": list(interval), "perplexity": [perplexity(loss) for loss in interval],
        },
        "by_sentence_length": _rows(sums["sentence_length"], groupings["sentence_length"], ids, baselines),
        "by_token": _rows(tokens, groupings["token"], ids, baselines),
        "by_document": _by_document(documents, document_names),
    }  # fmt: skip


def confidence_interval(nll: Array, tokens: Array) -> tuple[float, float] | None:
    """95 % confidence interval of the loss per token (nats): percentile bootstrap over documents (Efron 1979), 1,000 resamples.

    Args:
        nll, tokens: [D] summed loss and number of tokens of each document.

    None for fewer than two documents. The resamples depend on D alone.
    """
    count = len(tokens)
    if count < 2:
        return None
    generator = np.random.Generator(np.random.Philox(key=[count, 0]))
    losses = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        resample = generator.integers(0, count, count)
        losses[index] = nll[resample].sum() / tokens[resample].sum()
    low, high = np.quantile(losses, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _rows(sums: GroupSums, grouping: Grouping, ids: Array, baselines: Baselines | None) -> list[dict[str, Any]]:
    """A row for each group that has tokens."""
    baseline_nll: dict[str, Array] = {}
    if baselines:
        groups = grouping.groups_of(np.arange(len(ids)), ids)
        baseline_nll = {
            name: np.bincount(groups, losses, len(grouping.names)) for name, losses in baselines.losses.items() if name != "uniform"
        }
    return [
        {
            "group": grouping.names[group],
            "tokens": int(sums.tokens[group]),
            "loss_per_token": float(sums.nll[group] / sums.tokens[group]),
            "perplexity": perplexity(sums.nll[group] / sums.tokens[group]),
            "accuracy_at_1": float(sums.top_1[group] / sums.tokens[group]),
            "accuracy_at_5": float(sums.top_5[group] / sums.tokens[group]),
            **{f"perplexity_{name}": perplexity(nll[group] / sums.tokens[group]) for name, nll in baseline_nll.items()},
        }
        for group in np.flatnonzero(sums.tokens).tolist()
    ]


def _by_document(sums: GroupSums, document_names: Callable[[Sequence[int]], list[str]]) -> dict[str, Any]:
    """Quantiles and a histogram of the documents' perplexities; the easiest and hardest documents."""
    losses = sums.nll / sums.tokens
    order = np.argsort(losses, kind="stable")
    summary: dict[str, Any] = {"perplexity_at": {f"{share:.0%}": perplexity(np.quantile(losses, share)) for share in QUANTILES}}
    for end, documents in (("easiest", order[:NAMED_DOCUMENTS]), ("hardest", order[::-1][:NAMED_DOCUMENTS])):
        rows = zip(document_names(documents.tolist()), sums.tokens[documents].tolist(), losses[documents].tolist(), strict=True)
        summary[end] = [{"document": name, "tokens": int(tokens), "perplexity": perplexity(loss)} for name, tokens, loss in rows]
    bins = min(40, 2 + 2 * math.isqrt(len(losses)))
    edges = np.geomspace(max(1.0, np.exp(losses.min()) * 0.999), np.exp(losses.max()) * 1.001, bins + 1)
    counts = np.histogram(np.exp(losses), edges)[0]
    return summary | {"histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}

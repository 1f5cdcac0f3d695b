"""A page with the texts sampled at each validation: a row per validation, so that each text stands below its predecessor."""

import html
from collections.abc import Sequence
from typing import Any

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Samples</title>
<style>
body { font: 14px/1.4 Georgia, serif; margin: 1.5em; color: #1a1a1a; background: #fff }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th:nth-child(1) { width: 4em }
th:nth-child(2) { width: 6em }
th, td { border-top: 1px solid #ccc; padding: .5em .8em; text-align: left; vertical-align: top; white-space: pre-wrap }
td { overflow-wrap: anywhere }
.number { font: .85em/1.7 sans-serif; text-align: right; white-space: nowrap }
</style>
<p>Each column is sampled with the same random numbers at every validation: only the model changes.</p>
"""


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page of rows of `samples.jsonl`: `step`, `perplexity` (None without a validation split), `sample`, `text`."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_step.setdefault(row["step"], []).append(row)
    columns = max(map(len, by_step.values()), default=0)
    titles = ["step", "validation perplexity", *(f"sample {number}" for number in range(1, columns + 1))]
    lines = ["".join(f"<th>{title}</th>" for title in titles), *(_line(step, samples) for step, samples in by_step.items())]
    return _HEAD + "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>\n</html>\n"


def _line(step: int, samples: list[dict[str, Any]]) -> str:
    perplexity = samples[0]["perplexity"]
    numbers = f"{step:,}", f"{perplexity:,.2f}" if perplexity is not None else "-"
    cells = [f'<td class="number">{number}</td>' for number in numbers]
    return "".join(cells + [f"<td>{html.escape(sample['text'])}</td>" for sample in samples])

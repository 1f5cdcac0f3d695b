"""What a model wrote at each validation, as a page with a table: a row for each, so that a text is read below the one before it."""

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
<p>Each column is drawn with the same random numbers at every validation: what changes is the model.</p>
"""


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page of some lines of `samples.jsonl`: `step`, `perplexity` (None without a validation split), `sample`, `text`."""
    steps: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        steps.setdefault(line["step"], []).append(line)
    columns = max(map(len, steps.values()), default=0)
    titles = ["step", "validation perplexity", *(f"sample {number}" for number in range(1, columns + 1))]
    rows = ["".join(f"<th>{title}</th>" for title in titles), *(_row(step, found) for step, found in steps.items())]
    return _HEAD + "<table>\n" + "".join(f"<tr>{row}</tr>\n" for row in rows) + "</table>\n</html>\n"


def _row(step: int, lines: list[dict[str, Any]]) -> str:
    perplexity = lines[0].get("perplexity")
    numbers = f"{step:,}", f"{perplexity:,.2f}" if perplexity is not None else "-"
    cells = [f'<td class="number">{number}</td>' for number in numbers]
    return "".join(cells + [f"<td>{html.escape(line['text'])}</td>" for line in lines])

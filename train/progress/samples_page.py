"""A page with the texts sampled at each validation: a row per validation, so that each text stands below its predecessor."""

import html
import re
from collections.abc import Sequence
from typing import Any

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Samples</title>
<style>
body { font: 14px/1.4 Georgia, serif; margin: 1.5em; color: #1a1a1a; background: #fff }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th:nth-child(1) { width: 4em }
th:nth-child(2) { width: 6em }
th, td { border-top: 1px solid #ccc; padding: .5em .8em; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere; white-space: pre-line }
span { font: .75em/1 monospace; color: #666; background: #eee; border-radius: 2px; padding: 0 .2em; margin: 0 .1em }
.number { font: .85em/1.7 sans-serif; text-align: right; white-space: nowrap }
</style>
<p>Each column is sampled with the same random numbers at every validation: only the model changes.
<span>?</span>: a byte that is not valid UTF-8, of which a model that has learned little makes many;
<span>0A</span>: a control character.</p>
"""
_NO_TEXT = re.compile(r"[\ufffd\x00-\x09\x0b-\x1f\x7f-\x9f]")


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
    return "".join(cells + [f"<td>{_cell(sample['text'])}</td>" for sample in samples])


def _cell(text: str) -> str:
    """A text without blank lines, and with marks for what a browser cannot show."""
    lines = "\n".join(line for line in map(str.strip, text.split("\n")) if line)
    return _NO_TEXT.sub(lambda match: f"<span>{'?' if match[0] == chr(0xFFFD) else f'{ord(match[0]):02X}'}</span>", html.escape(lines))

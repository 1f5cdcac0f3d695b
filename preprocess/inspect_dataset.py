"""Formats a dataset as text: a table of its numbers, and rows of its views."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packlm import dataset
from packlm.base import escape
from packlm.base.escape import Multiline
from packlm.text.encoder import Encoder

COLUMNS = ("documents", "sentences", "tokens", "words", "unknown", "bytes")
"""Columns of the table; `unknown` is a share of the tokens."""
SEPARATOR = "│"
"""Printed between tokens; rarer in text than `|`."""
MAX_CHARACTERS, MAX_TOKENS = 400, 48
"""Limits for a text, and for the tokens of a row or the values of a list; what exceeds them is only counted."""


def table(manifest: dataset.Manifest) -> Multiline:
    """A table of the size of each split, then the counts of what was skipped, replaced or dropped, one line per reason."""
    rows: list[tuple[str, ...]] = [("split", *COLUMNS)]
    for name, split in manifest.splits.items():
        numbers = {column: f"{getattr(split, column):,}" for column in COLUMNS} | {"unknown": f"{split.unknown / split.tokens:.2%}"}
        rows.append((name, *numbers.values()))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return escape.lines(*lines, *(f"{reason}: {count:,}" for reason, count in manifest.counts.items()))


def rate(manifest: dataset.Manifest, seconds: float) -> str:
    """The speed of a build, such as `12.3 s, 4.56 MB of text a second` (1 MB is 10^6 bytes)."""
    megabytes = sum(split.bytes for split in manifest.splits.values()) / 1e6
    return f"{seconds:.1f} s, {megabytes / seconds:.2f} MB of text a second"


def rows(folder: Path, manifest: dataset.Manifest, encoder: Encoder, view: dataset.View, split: str, count: int) -> Iterator[str]:
    """The first `count` rows of a view of a split, each as some lines of text with all columns."""
    number = 0
    for shard in dataset.open_shards(folder, manifest, view, split):
        for batch in shard.iter_batches(max(1, min(count, 1024))):
            for row in batch.to_pylist():
                if number == count:
                    return
                yield _sentence(row, encoder) if view == "sentences" else _fixed(row, number, encoder)
                number += 1


def _sentence(row: dict[str, Any], encoder: Encoder) -> str:
    document, position, ids = row.pop("document"), row.pop("position"), row.pop("ids")
    text = _shortened(encoder.decode(ids))
    about = "; ".join([_amount(len(ids), "token"), *_others(row)])
    return f"{_printable(document)}, sentence {position}: {about}\n    {text}\n    {_tokens(ids, encoder)}"


def _fixed(row: dict[str, Any], number: int, encoder: Encoder) -> str:
    ids = row.pop("ids")
    return f"row {number}: {'; '.join(_others(row))}\n    {_tokens(ids, encoder)}"


def _others(row: dict[str, Any]) -> list[str]:
    """The other columns, such as `words 4`, `joined`, `gap "\\n"`, without false and empty ones."""
    parts = []
    for key, value in row.items():
        if value is True:
            parts.append(key)
        elif isinstance(value, list) and value:
            more = f", {len(value) - MAX_TOKENS:,} more" if len(value) > MAX_TOKENS else ""
            parts.append(f"{key} {', '.join(map(str, value[:MAX_TOKENS]))}{more}")
        elif isinstance(value, str) and value:
            parts.append(f"{key} {json.dumps(_cut(value), ensure_ascii=True)}")
        elif isinstance(value, int | float) and value is not False:
            parts.append(f"{key} {value:,}")
    return parts


def _tokens(ids: list[int], encoder: Encoder) -> str:
    shown = SEPARATOR.join(_printable(encoder.token(id)) for id in ids[:MAX_TOKENS])
    return shown + (f" ... {_amount(len(ids) - MAX_TOKENS, 'more token')}" if len(ids) > MAX_TOKENS else "")


def _shortened(text: str) -> str:
    return _printable(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ... {_amount(len(text) - MAX_CHARACTERS, 'more character')}"


def _printable(text: str) -> str:
    """The text with non-printable characters escaped, since a terminal would obey control characters."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


def _amount(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

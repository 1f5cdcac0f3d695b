"""The field of records that holds the text: the one called `text`, else the one with most characters in the first records."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from packlm.corpus import delimited, file_kinds, streams
from packlm.corpus.records import field_names, field_of
from packlm.corpus.sources import Source

_RECORDS = 50


def text_field(source: Source) -> str:
    """The field or column of a file of records; `text` where none can be told."""
    characters = Counter[str]()
    for record in islice(_records(source), _RECORDS):
        for name in field_names(record):
            value = field_of(record, name)
            characters[name] += len(value) if isinstance(value, str) else 0
    longest = max(characters, key=characters.__getitem__, default="text")
    return "text" if characters["text"] or not characters[longest] else longest


def _records(source: Source) -> Iterator[dict[str, Any]]:
    if source.format == "parquet":
        import pyarrow.parquet as pq

        with source.open() as stream, pq.ParquetFile(stream) as table:
            for batch in table.iter_batches(_RECORDS):
                yield from batch.to_pylist()
        return
    head = streams.head(source, file_kinds.HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = head.splitlines(keepends=True)
    if source.format == "csv" and lines:
        header: list[str] = []
        for row in delimited.rows(lines[:-1] or lines, delimited.dialect(source.name, lines[0])):
            if header and not row.problem:
                yield dict(zip(header, row.fields, strict=False))
            header = header or row.fields
        return
    decode = json.JSONDecoder().raw_decode
    start = head.find("{")
    while start >= 0:  # an array of objects, one after the other, or one a line; the last one may be cut
        try:
            record, end = decode(head, start)
        except (ValueError, RecursionError):
            return
        yield record
        start = head.find("{", end)

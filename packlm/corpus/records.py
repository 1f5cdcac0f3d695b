"""Documents that are fields of records: JSONL, CSV and Parquet.

A record that cannot be read stops the work, or is skipped and counted where bad text is replaced or skipped: there is nothing to
put in its place. Bytes of a field that are not in the file's encoding are left to cleaning, as in any document.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.cleaning import RawDocuments
from packlm.corpus.sources import Part, Source
from packlm.corpus.streams import BLOCK, Lines, lines, not_encoded, too_long
from packlm.corpus.transcoding import label

_BATCH_ROWS = 1 << 10
_KINDS = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
_UNREADABLE = "records skipped that could not be read"


def jsonl(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """A document a line: the string in its `rules.text_field`. Blank lines are no records."""
    source, field = part.source, rules.text_field
    decode = json.JSONDecoder().decode
    for block in lines(part, rules, counts):
        text = _text(block, source, rules)
        gathered = _Gathered(source, rules)
        for number, line in enumerate(text.split("\n"), block.number):
            try:
                document = decode(line)[field].encode()
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                if not line or line.isspace():
                    continue
                document, wrong = _field(line, field, decode)
                if document is None:
                    _unreadable(source, f"line {number}", wrong, rules, counts)
                    continue
            gathered.add(document, number)
        yield gathered.found()


def rows(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """A document a row of CSV: the column that the first row calls `rules.text_field`. Blank lines are no rows."""
    source = part.source
    reader = csv.reader(_csv_lines(part, rules, counts), delimiter=source.delimiter, strict=True)
    header: list[str] = []
    column, number = -1, 0
    gathered = _Gathered(source, rules)
    while True:
        place = f"row {number + 1} (line {reader.line_num + 1})" if header else "line 1"
        wrong = ""
        try:
            row = _next(reader, rules.max_document_bytes)
        except csv.Error as error:
            if "field limit" in str(error):
                raise too_long(source, place, rules) from None
            row, wrong = ["?"], f"not CSV ({error})"
        if row is None:
            break
        if not row:
            continue
        if not header:
            if wrong:
                raise PacklmError(f"{source.where}: {place}: {wrong}")
            if rules.text_field not in row:
                there = ", ".join(map(repr, row))
                raise PacklmError(
                    f"{source.where}: no column {rules.text_field!r} in its first row; there are {there}; name one with --corpus.text_field"
                )
            header, column = row, row.index(rules.text_field)
            continue
        number += 1
        if not wrong and len(row) != len(header):
            wrong = f"{len(row)} fields where the first row has {len(header)}"
        if wrong:
            _unreadable(source, place, wrong, rules, counts)
            continue
        gathered.add(row[column].encode(errors="surrogateescape"), number)
        if gathered.size >= BLOCK:
            yield gathered.found()
            gathered = _Gathered(source, rules)
    yield gathered.found()


def _next(reader: Iterator[list[str]], limit: int) -> list[str] | None:
    """The next row; of a quote that nobody closes, no more than `limit` is held. Other readers of CSV are left their limit."""
    before = csv.field_size_limit(min(limit, sys.maxsize))
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def parquet(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """A document a row of Parquet: its string in the column `rules.text_field`."""
    source, number = part.source, part.number
    groups = list(range(part.start, part.stop))
    with source.open_parquet(rules.text_field) as file:
        batches = file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[rules.text_field]) if groups else iter(())
        waiting: list[pa.Array] = []
        first, size = number, 0
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise PacklmError(f"{source.where}: damaged after row {number - 1}: {error}; get it anew") from None
            if batch is not None:
                column = batch.column(0)
                column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                waiting.append(column.cast(pa.large_binary()))
                number += len(column)
                size += waiting[-1].nbytes
            if waiting and (batch is None or size >= BLOCK):
                yield _strings(pa.concat_arrays(waiting), first, source, rules, counts)
                waiting, first, size = [], number, 0
            if batch is None:
                break


def _strings(column: pa.Array, first: int, source: Source, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    numbers = np.arange(first, first + len(column))
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        for number in numbers[missing].tolist():
            _unreadable(source, f"row {number}", f"null in column {rules.text_field!r}", rules, counts)
        numbers, column = numbers[~missing], pc.drop_null(column)
    bounds = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    if len(longer := np.flatnonzero(np.diff(bounds) > rules.max_document_bytes)):
        raise too_long(source, f"row {numbers[longer[0]]}", rules)
    held = column.buffers()[2]
    data = np.frombuffer(held, np.uint8)[bounds[0] : bounds[-1]] if held and len(column) else np.empty(0, np.uint8)
    return RawDocuments(source, data, bounds[1:] - bounds[0], numbers)


class _Gathered:
    """Documents on their way to being `RawDocuments`."""

    def __init__(self, source: Source, rules: Corpus):
        self.source, self.rules = source, rules
        self.documents: list[bytes] = []
        self.numbers: list[int] = []
        self.size = 0

    def add(self, document: bytes, number: int) -> None:
        if len(document) > self.rules.max_document_bytes:
            raise too_long(self.source, f"{'row' if self.source.kind == 'csv' else 'line'} {number}", self.rules)
        self.documents.append(document)
        self.numbers.append(number)
        self.size += len(document)

    def found(self) -> RawDocuments:
        data = np.frombuffer(b"".join(self.documents), np.uint8)
        ends = np.cumsum([len(document) for document in self.documents], dtype=np.int64)
        return RawDocuments(self.source, data, ends, np.array(self.numbers, np.int64))


def _field(line: str, field: str, decode: Callable[[str], Any]) -> tuple[bytes | None, str]:
    """(the text of a record in UTF-8, "") or (None, what is wrong with it)."""
    try:
        record = decode(line)
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, f"not JSON ({error})"
    if not isinstance(record, dict):
        return None, f"{_KINDS.get(type(record), 'a string')}, not an object"
    if field not in record:
        there = ", ".join(map(repr, list(record)[:20])) or "none"
        return None, f"no field {field!r} (there are: {there}; name one with --corpus.text_field)"
    text = record[field]
    if not isinstance(text, str):
        return None, f"{_KINDS[type(text)]} in {field!r}, not a string"
    try:
        # Bad bytes of the line, kept as surrogates by `_text`; surrogates that it spells (\ud800) are of no line without bad bytes.
        return text.encode(errors="strict" if _encodable(line) else "surrogateescape"), ""
    except UnicodeEncodeError as error:
        return None, f"half a surrogate pair in {field!r} (\\u{ord(text[error.start]):04x}), which is no character"


def _encodable(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(source: Source, place: str, wrong: str, rules: Corpus, counts: Counter[str]) -> None:
    if rules.on_bad_text == "error":
        raise PacklmError(f"{source.where}: {place}: {wrong}; change it, or leave it out with --corpus.on_bad_text skip")
    counts[_UNREADABLE] += 1


def _text(block: Lines, source: Source, rules: Corpus) -> str:
    """The lines as text; bytes that are not in the encoding stop the work, or become surrogates that encode to what they were."""
    try:
        return block.data.decode()
    except UnicodeDecodeError as error:
        if rules.on_bad_text != "error":
            return block.data.decode(errors="surrogateescape")
        line = block.number + block.data.count(b"\n", 0, error.start)
        at = f"byte offset {block.offset + error.start}, line {line}" if block.offset is not None else f"line {line}"
        bad = block.data[error.start : error.end].hex(" ")
        encoding = source.encoding
        raise PacklmError(f"{source.where}: not {label(encoding)} at {at} (byte {bad}); {not_encoded(encoding)}") from None


def _csv_lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[str]:
    for block in lines(part, rules, counts):
        yield from io.StringIO(_text(block, part.source, rules), newline="")

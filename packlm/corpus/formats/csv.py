"""CSV and TSV: a document is a field of a row, in the column that the first row calls `corpus.text_field`. Blank lines are no rows."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import streams
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import DocumentBuffer, decode_lines, skip_record
from packlm.corpus.sources import Part


class Csv(Format):
    """Comma-separated values; tab-separated ones in files called `.tsv`. Read whole: only a parser knows which line feeds end rows."""

    suffixes = (".csv", ".tsv")

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        source = part.source
        delimiter = "\t" if source.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv") else ","
        reader = csv.reader(_lines(part, rules, counts), delimiter=delimiter, strict=True)
        header: list[str] = []
        column, number = -1, 0
        buffer = DocumentBuffer(source, rules, "row")
        while True:
            position = f"row {number + 1} (line {reader.line_num + 1})" if header else "line 1"
            problem = ""
            try:
                row = _next_row(reader, rules.max_document_bytes)
            except csv.Error as error:
                if "field limit" in str(error):
                    raise streams.too_long(source, position, rules) from None
                row, problem = ["?"], f"not CSV ({error})"
            if row is None:
                break
            if not row:
                continue
            if not header:
                if problem:
                    raise PacklmError(f"{source.where}: {position}: {problem}")
                if rules.text_field not in row:
                    missing = f"no column {rules.text_field!r} in its first row; there are {', '.join(map(repr, row))}"
                    raise PacklmError(f"{source.where}: {missing}; name one with --corpus.text_field")
                header, column = row, row.index(rules.text_field)
                continue
            number += 1
            if not problem and len(row) != len(header):
                problem = f"{len(row)} fields where the first row has {len(header)}"
            if problem:
                skip_record(source, position, problem, rules, counts)
                continue
            buffer.add(row[column].encode(errors="surrogateescape"), number)
            if buffer.size >= streams.BLOCK:
                yield buffer.flush()
        yield buffer.flush()


def _lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[str]:
    for block in streams.lines(part, rules, counts):
        yield from io.StringIO(decode_lines(block, part.source, rules), newline="")


def _next_row(reader: Iterator[list[str]], limit: int) -> list[str] | None:
    """The next row, None at the end; of an unclosed quote no more than `limit` is read. The module's limit is global, so it is restored."""
    previous = csv.field_size_limit(min(limit, sys.maxsize))
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(previous)


FORMATS = {"csv": Csv()}

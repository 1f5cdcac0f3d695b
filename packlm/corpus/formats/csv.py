"""CSV and TSV: a document is a field of a row, in the column that the first row calls `corpus.text_field`. Blank lines are no rows."""

import io
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import delimited, streams
from packlm.corpus.delimited import FieldTooLong, QuoteCheck
from packlm.corpus.file_kinds import looks_like
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import NAME_FIELD, DocumentBuffer, decode_lines, skip_record
from packlm.corpus.sources import Part

log = logging.getLogger("packlm")


class Csv(Format):
    """Rows as `delimited` reads them. Read whole: only a parser knows which line feeds end rows."""

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        source, lines = part.source, _lines(part, rules, counts)
        first_line = next(lines, "")
        dialect = delimited.dialect(source.name, first_line, rules.delimiter, rules.quoting)
        check, header, column, number = QuoteCheck(dialect), list[str](), -1, 0
        buffer = DocumentBuffer(source, rules, "row")
        try:
            for row in delimited.rows(chain([first_line], lines), dialect, rules.max_document_bytes):
                if not header:
                    header = row.fields
                    if rules.text_field not in header:
                        missing = f"no column {rules.text_field!r} in its first row; there are {', '.join(map(repr, header))}"
                        hint = looks_like(first_line.encode(errors="surrogateescape"))
                        raise PacklmError(f"{source.where}: {row.problem or f'{missing}; {NAME_FIELD}'}{hint}")
                    column = header.index(rules.text_field)
                    continue
                number += 1
                problem = row.problem
                if not problem and len(row.fields) != len(header):
                    problem = f"{len(row.fields)} fields where the first row has {len(header)}"
                if problem:
                    skip_record(source, f"row {number} (line {row.line})", problem, rules, counts)
                    continue
                check.add(row)
                buffer.add(row.fields[column].encode(errors="surrogateescape"), number)
                if buffer.size >= streams.BLOCK:
                    yield buffer.flush()
        except FieldTooLong as error:
            raise streams.too_long(source, f"row {number + 1} (line {error.line})", rules) from None
        if check.warning:
            log.warning("%s: %s", source.where, check.warning)
        yield buffer.flush()


def _lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[str]:
    for block in streams.lines(part, rules, counts):
        yield from io.StringIO(decode_lines(block, part.source, rules), newline="")


FORMATS = {"csv": Csv()}

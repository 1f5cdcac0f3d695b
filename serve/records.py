"""Records of an input file: the lines of text, the rows of CSV or TSV, the objects of JSON Lines or of a JSON array.

What a file is, its name and its first bytes say, as they do for corpora (`packlm.corpus.file_kinds`); so do the rules of quotation marks
(`packlm.corpus.delimited`). A record that cannot be read is an error of its own; the others are read.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from packlm.base import json_text
from packlm.base.errors import RequestError
from packlm.corpus import delimited, file_kinds
from packlm.corpus.delimited import DelimitedRow, FieldTooLong, QuoteCheck, Quoting

from . import lines
from .lines import MAX_BYTES, decode, json_value

log = logging.getLogger("packlm")

Format = Literal["auto", "text", "tsv", "csv", "jsonl", "json"]
LINE = "line"
"""The only field of a line of text."""
MAX_JSON_BYTES = 1 << 30
"""Largest JSON file, which is read as a whole."""


@dataclass(frozen=True)
class InputRecord:
    """One record: its fields, or what is wrong with it."""

    number: int
    """Line in the file, or number of the value in a JSON array; from 1, the header of a table aside."""
    fields: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class RecordFile:
    """The records of a file; it can be read repeatedly."""

    def __init__(
        self, stream: IO[bytes], name: str, format: str = "auto", plain: Literal["text", "csv"] = "text", setting: str = "",
        delimiter: str = "auto", quoting: Quoting = "auto",
    ):  # fmt: skip
        """
        Args:
            stream: seekable.
            name: of the file, for messages and its suffix; `-` is standard input.
            format: one of `Format`.
            plain: what a file is whose name and first bytes do not say, under auto.
            setting: the option that sets the format, for messages; empty if there is none.
            delimiter, quoting: `corpus.delimiter`, `corpus.quoting`.

        Raises:
            RequestError: it looks like something else than its name says, or is none of the formats; JSON that cannot be read.
        """
        self._stream, self.name, self._start = stream, name, stream.tell()
        head = stream.read(file_kinds.HEAD_BYTES)
        self.format = format if format != "auto" else _detect(name, head, plain, setting)
        first = head.partition(b"\n")[0]
        if self.format in ("text", "tsv", "csv") and (offset := first.find(b"\0")) >= 0:
            raise RequestError(f"{name}: not a text file: byte {offset + 1} is NUL")
        self.columns: list[str] = []
        """The header of a table."""
        self.value: Any = None
        """The content of a JSON file."""
        if self.format in ("tsv", "csv"):
            file_name = "table.tsv" if self.format == "tsv" else name
            self._dialect = delimited.dialect(file_name, first.decode(errors="replace"), delimiter, quoting)
            header = next(self._delimited(), None)
            self.columns = header.fields if header else []
        elif self.format == "json":
            self.value = self._json()

    def __iter__(self) -> Iterator[InputRecord]:
        if self.format in ("tsv", "csv"):
            return self._rows()
        return self._values() if self.format == "json" else self._line_records()

    def field_names(self) -> list[str]:
        """The names of all fields of all records, in the order of their first appearance; reads the file for those of objects."""
        if self.columns or self.format == "text":
            return self.columns or [LINE]
        return list(dict.fromkeys(name for record in self for name in record.fields))

    def _raw_lines(self) -> Iterator[bytes]:
        self._stream.seek(self._start)
        return lines.read(self._stream)

    def _line_records(self) -> Iterator[InputRecord]:
        for number, line in enumerate(self._raw_lines(), 1):
            text, error = decode(line)
            if error or self.format == "text":
                yield InputRecord(number, {} if error else {LINE: text}, error)
            else:
                value, error = json_value(text)
                yield _of_value(number, value, error)

    def _values(self) -> Iterator[InputRecord]:
        for number, value in enumerate(self.value if isinstance(self.value, list) else [self.value], 1):
            yield _of_value(number, value, "")

    def _json(self) -> Any:
        self._stream.seek(self._start)
        content = self._stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise RequestError(f"{self.name}: more than {MAX_JSON_BYTES >> 30} GiB of JSON in one value; write an object a line (.jsonl)")
        try:
            return json_text.loads(content.removeprefix(lines.BYTE_ORDER_MARK).decode())
        except ValueError as error:  # a UnicodeDecodeError is one
            raise RequestError(f"{self.name}: not JSON: {error}") from None

    def _rows(self) -> Iterator[InputRecord]:
        check = QuoteCheck(self._dialect)
        rows = self._delimited()
        next(rows, None)
        for row in rows:
            if row.problem:
                yield InputRecord(row.line - 1, error=row.problem)
            elif len(row.fields) != len(self.columns):
                yield InputRecord(row.line - 1, error=f"{len(row.fields)} columns, the header has {len(self.columns)}")
            else:
                check.add(row)
                yield InputRecord(row.line - 1, dict(zip(self.columns, row.fields, strict=True)))
        if check.warning:
            log.warning("%s: %s", self.name, check.warning)

    def _delimited(self) -> Iterator[DelimitedRow]:
        """The rows, the header first. A line that is no text is a row with a problem, and so is the row that it stands in."""
        if not self._dialect.quoted:
            for number, line in enumerate(self._raw_lines(), 1):
                text, error = decode(line)
                yield DelimitedRow(number, [] if error else text.split(self._dialect.delimiter), error)
            return
        problems: list[str] = []

        def texts() -> Iterator[str]:
            for line in self._raw_lines():
                text, error = decode(line)
                if error:  # its quotation marks and delimiters still say where rows end
                    problems.append(error)
                    text = line[:MAX_BYTES].decode(errors="replace").replace("\0", " ").rstrip("\r\n")
                yield text + "\n"

        try:
            for row in delimited.rows(texts(), self._dialect, MAX_BYTES):
                yield DelimitedRow(row.line, [], problems[0]) if problems else row
                problems.clear()
        except FieldTooLong as error:
            problem = f"longer than {MAX_BYTES >> 20} MiB: is a quotation mark never closed? The rest of the file is not read"
            yield DelimitedRow(error.line, [], problem)


def _of_value(number: int, value: Any, error: str) -> InputRecord:
    if error or isinstance(value, dict):
        return InputRecord(number, {} if error else value, error)
    return InputRecord(number, error="not an object")


def _detect(name: str, head: bytes, plain: str, setting: str) -> str:
    """The format of a file under auto."""
    kind = file_kinds.kind("" if name == "-" else Path(name).name, head)
    if kind.what:
        remedy = {"packed": "decompress or extract it", "utf-16": "convert it to UTF-8", "binary": "give a text file"}[kind.what]
        raise RequestError(f"{name}: not a text file: {kind.problem}; {remedy}")
    if Path(name).suffix in (".gz", ".zst"):
        raise RequestError(f"{name}: compressed by its name, but not by its content; rename it")
    is_meant = name == "-" or not setting or kind.format == plain
    if kind.problem and not (kind.format and is_meant):
        raise RequestError(f"{name}: {kind.refusal(setting) if setting else f'{kind.problem}; {kind.remedy}'}")
    if kind.format == "parquet":
        raise RequestError(f"{name}: Parquet is not read here; write it as .jsonl or .csv")
    if Path(name).suffix == ".json" and b"\n" not in head.strip():  # one line: one value, such as a suite
        return "json"
    return plain if kind.format in ("text", "") else kind.format

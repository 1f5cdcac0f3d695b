"""Reads files of sentences, of any size, line by line.

text     a sentence a line. With documents, an empty line ends a document; otherwise it is the empty sentence.
tsv      a header line, then a sentence a line in the column `text`; no quoting. Consecutive rows with one `item` are a document; without
         a column `item` each row is one.
jsonl    objects with `text`, and `item` if wanted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

from packlm.base.errors import RequestError

from .. import lines
from ..lines import decode, json_value


@dataclass(frozen=True)
class Row:
    """A line of the input: a sentence, or an error."""

    number: int
    """Counts from 1, the header of a TSV aside."""
    text: str = ""
    starts_document: bool = True
    item: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Other columns or fields of the line, which are passed through."""
    error: str = ""
    """Why the line is not a sentence."""


class Reader:
    """The rows of a stream; the header of a TSV is read at once."""

    def __init__(
        self, stream: IO[bytes], name: str, format: str, text_field: str, documents: bool, setting: str = "score.text_field"
    ):  # fmt: skip
        """
        Args:
            name: name of the file, for messages and its suffix; `-` is standard input.
            format: `score.format`.
            documents: whether a sentence follows those before it in its document.
            setting: the setting that `text_field` comes from, for messages.

        Raises:
            RequestError: a binary file, or a TSV without a column `text_field`.
        """
        self._text_field, self._documents = text_field, documents
        self.extra_columns: list[str] = []
        """Columns of a TSV that are passed through."""
        remaining = lines.read(stream)
        first = next(remaining, b"")
        self.format = format if format != "auto" else _format_of(name, first)
        if self.format != "jsonl" and (offset := first.find(b"\0")) >= 0:
            raise RequestError(f"{name}: not a text file: byte {offset + 1} is NUL")
        self._lines = chain([first] if first else [], remaining)
        if self.format == "tsv":
            self._columns = decode(next(self._lines, b""))[0].split("\t")
            if text_field not in self._columns or len(set(self._columns)) < len(self._columns):
                columns = ", ".join(filter(None, self._columns)) or "none"
                raise RequestError(f"{name}: no column {text_field!r}, or one twice; found {columns}; {setting} names the text column")
            self.extra_columns = [column for column in self._columns if column not in (text_field, "item")]

    def __iter__(self) -> Iterator[Row]:
        parse = {"text": self._parse_text, "tsv": self._parse_tsv, "jsonl": self._parse_json}[self.format]
        last_item, ended, documents = None, True, 0
        for number, line in enumerate(self._lines, 1):
            text, error = decode(line)
            row = Row(number, error=error) if error else parse(number, text)
            if row.error:
                yield row
                continue
            if self.format != "text":
                starts = row.item is None or row.item != last_item
            elif self._documents and not text.strip():
                ended = True
                continue
            else:
                starts = ended or not self._documents
            last_item, ended, documents = row.item, False, documents + starts
            item = row.item if row.item is not None else documents if self._documents else number
            yield replace(row, starts_document=starts, item=item)

    def _parse_text(self, number: int, line: str) -> Row:
        return Row(number, line)

    def _parse_tsv(self, number: int, line: str) -> Row:
        values = line.split("\t")
        if len(values) != len(self._columns):
            return Row(number, error=f"{len(values)} columns, the header has {len(self._columns)}")
        cells = dict(zip(self._columns, values, strict=True))
        extra = {name: cells[name] for name in self.extra_columns}
        return Row(number, cells[self._text_field], item=cells.get("item"), extra=extra)

    def _parse_json(self, number: int, line: str) -> Row:
        value, error = json_value(line)
        if error:
            return Row(number, error=error)
        if not isinstance(value, dict) or not isinstance(value.get(self._text_field), str):
            return Row(number, error=f'not an object with a string "{self._text_field}"')
        extra = {key: other for key, other in value.items() if key not in (self._text_field, "item")}
        return Row(number, value[self._text_field], item=value.get("item"), extra=extra)


def _format_of(name: str, first_line: bytes) -> str:
    suffix = Path(name).suffix
    if suffix in (".tsv", ".jsonl"):
        return suffix[1:]
    return "jsonl" if name == "-" and first_line.lstrip().startswith(b"{") else "text"

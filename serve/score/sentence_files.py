"""Files of sentences, of any size, read line by line.

text     a sentence a line. Read as documents, an empty line ends a document; otherwise it is the empty sentence.
tsv      a line of column names, then a sentence a line in the column `text`; no quoting. Rows that follow each other with one `item`
         are a document; without such a column each is one.
jsonl    objects with `text`, and `item` if wanted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from packlm.base.errors import RequestError

from ..lines import decoded, json_value


@dataclass(frozen=True)
class Row:
    """A line of the input: a sentence, or why it is none."""

    number: int
    """Counts from 1."""
    text: str = ""
    opens: bool = True
    """Whether it opens a document."""
    item: Any = None
    others: dict[str, Any] = field(default_factory=dict)
    """What else the line holds, to be passed through."""
    error: str = ""


class Reader:
    """The rows of a stream; what the header of a TSV says is known at once."""

    def __init__(self, stream: Iterable[bytes], name: str, kind: str, text_field: str, documents: bool, setting: str = "score.text_field"):
        """
        Args:
            name: of the file, for messages and its ending; `-` is standard input.
            kind: `score.format`.
            documents: whether sentences are read after one another.
            setting: the one that names `text_field`, for messages.

        Raises:
            RequestError: a binary file, or a TSV without a column `text_field`.
        """
        self._field, self._documents = text_field, documents
        self.others: list[str] = []
        """Columns of a TSV that are passed through."""
        lines = iter(stream)
        first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
        if (place := first.find(b"\0")) >= 0:
            raise RequestError(f"{name}: not a text file: byte {place + 1} is NUL")
        self.kind = kind if kind != "auto" else _kind(name, first)
        self._lines = iter(chain([first] if first else [], lines))
        if self.kind == "tsv":
            self._columns = decoded(next(self._lines, b""))[0].split("\t")
            if text_field not in self._columns or len(set(self._columns)) < len(self._columns):
                there = ", ".join(filter(None, self._columns)) or "none"
                raise RequestError(f"{name}: no column {text_field!r}, or one twice; there are {there}; {setting} names the text's")
            self.others = [column for column in self._columns if column not in (text_field, "item")]

    def __iter__(self) -> Iterator[Row]:
        read = {"text": self._text, "tsv": self._tsv, "jsonl": self._json}[self.kind]
        before, ended, documents = None, True, 0
        for number, line in enumerate(self._lines, 1):
            text, error = decoded(line)
            row = Row(number, error=error) if error else read(number, text)
            if row.error:
                yield row
                continue
            if self.kind != "text":
                opens = row.item is None or row.item != before
            elif self._documents and not text.strip():
                ended = True
                continue
            else:
                opens = ended or not self._documents
            before, ended, documents = row.item, False, documents + opens
            item = row.item if row.item is not None else documents if self._documents else number
            yield replace(row, opens=opens, item=item)

    def _text(self, number: int, line: str) -> Row:
        return Row(number, line)

    def _tsv(self, number: int, line: str) -> Row:
        values = line.split("\t")
        if len(values) != len(self._columns):
            return Row(number, error=f"{len(values)} columns, the header has {len(self._columns)}")
        cells = dict(zip(self._columns, values, strict=True))
        return Row(number, cells[self._field], item=cells.get("item"), others={name: cells[name] for name in self.others})

    def _json(self, number: int, line: str) -> Row:
        value, wrong = json_value(line)
        if wrong:
            return Row(number, error=wrong)
        if not isinstance(value, dict) or not isinstance(value.get(self._field), str):
            return Row(number, error=f'not an object with a "{self._field}" that is a string')
        others = {name: other for name, other in value.items() if name not in (self._field, "item")}
        return Row(number, value[self._field], item=value.get("item"), others=others)


def _kind(name: str, first: bytes) -> str:
    ending = Path(name).suffix
    if ending in (".tsv", ".jsonl"):
        return ending[1:]
    return "jsonl" if name == "-" and first.lstrip().startswith(b"{") else "text"

"""Reads files of sentences, of any size, record by record (`serve.records`).

text     a sentence a line. With documents, an empty line ends a document; otherwise it is the empty sentence.
csv, tsv a header, then a sentence a row in the column `text`. Consecutive rows with one `item` are a document; without a column `item`
         each row is one.
jsonl    objects with `text`, and `item` if wanted; json: an array of them.
json     a suite of SyntaxGym (`serve.score.syntaxgym`): each condition of each item is a sentence by itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from packlm.base.errors import RequestError

from ..records import LINE, InputRecord, RecordFile
from . import syntaxgym
from .syntaxgym import Region

ITEM = "item"


@dataclass(frozen=True)
class Row:
    """A record of the input: a sentence, or an error."""

    number: int
    """Counts from 1 in its file, the header of a table aside."""
    text: str = ""
    starts_document: bool = True
    item: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Other columns or fields of the record, which are passed through."""
    error: str = ""
    """Why the record is not a sentence."""
    regions: tuple[Region, ...] = ()
    """Those of a sentence of a suite."""
    file: str = ""
    """Its file, where there are several."""
    position: int = 0
    """Its number among the records of all files, from 1."""


R = TypeVar("R", bound=Row)


class Reader:
    """The rows of a file."""

    def __init__(self, records: RecordFile, text_field: str, setting: str = "score.text_field"):
        """
        Args:
            text_field: the column or field with the sentence.
            setting: the setting that `text_field` comes from, for messages.

        Raises:
            RequestError: a table without a column `text_field`, or with one twice.
        """
        self.records, self._text_field = records, text_field
        self.is_suite = records.format == "json" and syntaxgym.is_suite(records.value)
        self._suite = list(syntaxgym.sentences(records.value, records.name)) if self.is_suite else []
        columns = records.columns
        if records.format in ("csv", "tsv") and (text_field not in columns or len(set(columns)) < len(columns)):
            found = ", ".join(filter(None, columns)) or "none"
            raise RequestError(f"{records.name}: no column {text_field!r}, or one twice; found {found}; {setting} names the text column")

    @property
    def name(self) -> str:
        return self.records.name

    def extra_columns(self) -> list[str]:
        """The columns and fields that are passed through; reads the file for those of objects."""
        if self.is_suite:
            return ["suite", "condition"]
        own = (ITEM, LINE if self.records.format == "text" else self._text_field)
        return [name for name in self.records.field_names() if name not in own]

    def rows(self, documents: bool = False) -> Iterator[Row]:
        """The rows in order. `documents`: whether a sentence follows those before it in its document."""
        if self.is_suite:
            for number, one in enumerate(self._suite, 1):
                extra = {"suite": one.suite, "condition": one.condition}
                yield Row(number, one.text, item=one.item, extra=extra, regions=one.regions, position=number)
            return
        last_item, ended, count = None, True, 0
        for record in self.records:
            row = self._row(record)
            if row.error:
                yield row
                continue
            if self.records.format != "text":
                starts = row.item is None or row.item != last_item
            elif documents and not row.text.strip():
                ended = True
                continue
            else:
                starts = ended or not documents
            last_item, ended, count = row.item, False, count + starts
            item = row.item if row.item is not None else count if documents else row.number
            yield replace(row, starts_document=starts, item=item)

    def _row(self, record: InputRecord) -> Row:
        number, fields = record.number, record.fields
        if record.error or self.records.format == "text":
            return Row(number, fields.get(LINE, ""), error=record.error, position=number)
        extra = {name: value for name, value in fields.items() if name not in (self._text_field, ITEM)}
        text = fields.get(self._text_field)
        if not isinstance(text, str):
            error = f'not an object with a string "{self._text_field}"'
            return Row(number, item=fields.get(ITEM), extra=extra, error=error, position=number)
        return Row(number, text, item=fields.get(ITEM), extra=extra, position=number)


def rows_of(files: Sequence[tuple[str, Iterable[R]]]) -> Iterator[R]:
    """The rows of several files (name, rows), one after the other; each names its file if there are several."""
    position = 0
    for name, rows in files:
        for row in rows:
            position += 1
            yield replace(row, file=name if len(files) > 1 else "", position=position)

"""Rows of CSV and TSV: one rule for corpora and for files of sentences or pairs to score.

Fields are separated by tabs in files called `.tsv` or `.tab`; elsewhere by what the first line has most of: comma, semicolon, tab or bar.
Fields separated by tabs are taken as they are: a quotation mark is text. Others may be enclosed in quotation marks, within which
delimiters and line ends are text and a doubled mark is one (RFC 4180). `corpus.delimiter` and `corpus.quoting` say otherwise.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, NamedTuple

Quoting = Literal["auto", "csv", "none"]
TAB_SUFFIXES = (".tsv", ".tab")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Dialect:
    """How rows are written."""

    delimiter: str
    """One character."""
    quoted: bool
    """Whether quotation marks enclose fields."""


class DelimitedRow(NamedTuple):
    """A row, or what is wrong with it."""

    line: int
    """Number of its first line, from 1."""
    fields: list[str]
    problem: str = ""
    """Why it could not be read; empty if it could."""


class FieldTooLong(ValueError):
    """A field longer than the limit; `line`: number of the first line of its row."""

    def __init__(self, line: int):
        super().__init__(f"line {line}: a field that is too long")
        self.line = line


def dialect(name: str, first_line: str, delimiter: str = "auto", quoting: Quoting = "auto") -> Dialect:
    """The dialect of a file.

    Args:
        name: its name; `.gz` and `.zst` at its end do not count.
        first_line: its first line, the header.
        delimiter, quoting: the settings of these names.
    """
    if delimiter == "auto":
        suffix = PurePath(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
        delimiter = "\t" if suffix in TAB_SUFFIXES else max(_DELIMITERS, key=first_line.count)
    return Dialect(delimiter, delimiter != "\t" if quoting == "auto" else quoting == "csv")


def rows(lines: Iterable[str], dialect: Dialect, limit: int = sys.maxsize) -> Iterator[DelimitedRow]:
    """The rows of lines, in order, as the module csv reads them; blank lines are no rows.

    Args:
        lines: each with its line end; a row with quotation marks may take several.
        limit: most characters of a field, so that no more is held of a quotation mark that is never closed.

    Raises:
        FieldTooLong: a field longer than `limit`.
    """
    reader = csv.reader(
        iter(lines), delimiter=dialect.delimiter, quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE, strict=True
    )
    while True:
        line = reader.line_num + 1
        previous = csv.field_size_limit(min(limit, sys.maxsize))  # the module's limit is global
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                raise FieldTooLong(line) from None
            yield DelimitedRow(line, [], f"not CSV ({error})")
            continue
        finally:
            csv.field_size_limit(previous)
        if fields is None:
            return
        if fields:
            yield DelimitedRow(line, fields)


class QuoteCheck:
    """Counts the fields that look as if quotation marks were meant where they are text, or text where they enclose fields."""

    def __init__(self, dialect: Dialect):
        self._dialect = dialect
        self.suspect = 0
        self.first_line = 0
        """The line of the first suspect row; 0 if there is none."""

    def add(self, row: DelimitedRow) -> None:
        """Looks at a row."""
        if self._dialect.quoted:
            suspects = sum("\n" in field and self._dialect.delimiter in field for field in row.fields)
            suspects *= self._dialect.delimiter == "\t"  # text of several lines has commas, but no tabs
        else:
            suspects = sum(len(field) > 1 and field[0] == field[-1] == '"' for field in row.fields)
        self.suspect += suspects
        self.first_line = self.first_line or row.line * (suspects > 0)

    @property
    def warning(self) -> str:
        """What looks wrong, and the remedy; empty if nothing does."""
        if not self.suspect:
            return ""
        if self._dialect.quoted:
            problem = "fields in quotation marks hold tabs and line ends, as if several rows had become one"
            return f"{self.suspect:,} {problem} (the first at line {self.first_line}); if marks are text, --corpus.quoting none"
        problem = "fields begin and end with a quotation mark, which is kept as text"
        return f"{self.suspect:,} {problem} (the first at line {self.first_line}); if they enclose fields, --corpus.quoting csv"

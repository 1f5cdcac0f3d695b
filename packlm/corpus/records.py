"""What the formats share whose documents are fields of records.

A record that cannot be read stops the work, or is skipped and counted where bad text is replaced or skipped: a record has no
replacement. Bytes of a field that are not in the file's encoding are left to cleaning, as in any document.
"""

from collections import Counter
from typing import Any

import numpy as np

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.file_kinds import looks_like
from packlm.corpus.raw_documents import RawDocuments, Unit
from packlm.corpus.sources import Source
from packlm.corpus.streams import Lines, not_encoded, too_long

NAME_FIELD = "name one with --corpus.text_field"
_TYPE_NAMES = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object",
}  # fmt: skip


class DocumentBuffer:
    """Gathers the documents of records into one `RawDocuments`."""

    def __init__(self, source: Source, rules: Corpus, unit: Unit):
        self.source, self.rules, self.unit = source, rules, unit
        self.documents: list[bytes] = []
        self.numbers: list[int] = []
        self.size = 0

    def add(self, document: bytes, number: int) -> None:
        """Adds the document of record `number`; `PacklmError` if it is longer than the rules allow."""
        if len(document) > self.rules.max_document_bytes:
            raise too_long(self.source, f"{self.unit} {number}", self.rules)
        self.documents.append(document)
        self.numbers.append(number)
        self.size += len(document)

    def flush(self) -> RawDocuments:
        """Returns the documents added so far and empties the buffer."""
        data = np.frombuffer(b"".join(self.documents), np.uint8)
        ends = np.cumsum([len(document) for document in self.documents], dtype=np.int64)
        documents = RawDocuments(self.source, data, ends, np.array(self.numbers, np.int64), unit=self.unit)
        self.documents, self.numbers, self.size = [], [], 0
        return documents


def field_of(record: Any, path: str) -> Any:
    """The value of a field: `text`, or `data.text` for the field `text` of the object in `data` (if there is no field `data.text`).

    Raises:
        KeyError: there is none.
        TypeError: `record` is no object.
    """
    if "." not in path or path in record:
        return record[path]
    outer, _, inner = path.partition(".")
    return field_of(record[outer], inner)


def text_of(record: Any, field: str, errors: str = "strict") -> tuple[bytes | None, str]:
    """(the text of a JSON record in UTF-8, "") or (None, what is wrong with the record); `errors`: what surrogates in it stand for."""
    if not isinstance(record, dict):
        return None, f"{_TYPE_NAMES[type(record)]}, not an object"
    try:
        text = field_of(record, field)
    except (KeyError, TypeError):
        return None, f"no field {field!r} (there are: {', '.join(map(repr, field_names(record)[:20])) or 'none'}; {NAME_FIELD})"
    if not isinstance(text, str):
        return None, f"{_TYPE_NAMES[type(text)]} in {field!r}, not a string"
    try:
        return text.encode(errors=errors), ""
    except UnicodeEncodeError as error:
        return None, f"half a surrogate pair in {field!r} (\\u{ord(text[error.start]):04x}), which is no character"


def field_names(record: Any, prefix: str = "") -> list[str]:
    """The fields of a record; those of objects in it as `data.text`."""
    inner = [
        field_names(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name] for name, value in record.items()
    ]
    return [name for names in inner for name in names]


def skip_record(source: Source, position: str, problem: str, rules: Corpus, counts: Counter[str], record: str = "") -> None:
    """Counts a record that cannot be read; `PacklmError` under on_bad_text = "error", which tells what `record` looks like."""
    if rules.on_bad_text == "error":
        problem += looks_like(record.encode(errors="surrogateescape"))
        raise PacklmError(f"{source.where}: {position}: {problem}; correct it, or skip it with --corpus.on_bad_text skip")
    counts["records skipped that could not be read"] += 1


def decode_lines(lines: Lines, source: Source, rules: Corpus) -> str:
    """The lines as a string. Invalid bytes become surrogates that encode to them again; `NotEncoded` under on_bad_text = "error"."""
    try:
        return lines.data.decode()
    except UnicodeDecodeError as error:
        if rules.on_bad_text != "error":
            return lines.data.decode(errors="surrogateescape")
        number = lines.number + lines.data.count(b"\n", 0, error.start)
        position = f"line {number}" if lines.offset is None else f"byte offset {lines.offset + error.start}, line {number}"
        raise not_encoded(source, position, lines.data[error.start : error.end], lines.data) from None

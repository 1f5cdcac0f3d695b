"""What the formats share whose documents are fields of records.

A record that cannot be read stops the work, or is skipped and counted where bad text is replaced or skipped: a record has no
replacement. Bytes of a field that are not in the file's encoding are left to cleaning, as in any document.
"""

from collections import Counter
from typing import Literal

import numpy as np

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Source
from packlm.corpus.streams import Lines, not_encoded, too_long


class DocumentBuffer:
    """Gathers the documents of records into one `RawDocuments`."""

    def __init__(self, source: Source, rules: Corpus, unit: Literal["line", "row"]):
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


def skip_record(source: Source, position: str, problem: str, rules: Corpus, counts: Counter[str]) -> None:
    """Counts a record that cannot be read; `PacklmError` under on_bad_text = "error"."""
    if rules.on_bad_text == "error":
        raise PacklmError(f"{source.where}: {position}: {problem}; correct it, or skip it with --corpus.on_bad_text skip")
    counts["records skipped that could not be read"] += 1


def decode_lines(lines: Lines, source: Source, rules: Corpus) -> str:
    """The lines as a string. Invalid bytes become surrogates that encode to them again; `PacklmError` under on_bad_text = "error"."""
    try:
        return lines.data.decode()
    except UnicodeDecodeError as error:
        if rules.on_bad_text != "error":
            return lines.data.decode(errors="surrogateescape")
        number = lines.number + lines.data.count(b"\n", 0, error.start)
        position = f"line {number}" if lines.offset is None else f"byte offset {lines.offset + error.start}, line {number}"
        raise not_encoded(source, position, lines.data[error.start : error.end]) from None

"""Documents as a format reads them, before cleaning. Shapes: D documents, B bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm.corpus.sources import Source
from packlm.text.document_block import DocumentBlock

Unit = Literal["line", "row", "record"]


@dataclass(frozen=True)
class RawDocuments:
    """Some documents of one source, end to end."""

    source: Source
    data: np.ndarray
    """[B] uint8: their bytes; UTF-8 where they are valid."""
    ends: np.ndarray
    """[D] int64: index in `data` after each document."""
    numbers: np.ndarray
    """[D] int64, ascending: number of the line, row or record at which each begins, from 1."""
    offsets: np.ndarray | None = None
    """[D] int64: byte of the source at which each begins; None if unknown."""
    unit: Unit = "line"
    """What `numbers` count."""
    is_text: bool = False
    """Whether documents are runs of the source's lines, rather than fields of records."""
    numbered: bool = True
    """Whether names of documents end in their numbers."""
    names: pa.Array | None = None
    """Names by number, from 1, where documents are not all of one source."""

    @property
    def starts(self) -> np.ndarray:
        """[D] int64: index in `data` of each document's first byte."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[: len(self.ends)]

    def document(self, index: int) -> bytes:
        """The bytes of one document."""
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : self.ends[index]].tobytes()

    def position(self, index: int, byte: int) -> str:
        """Where byte `byte` of a document is in the source, for messages: `row 7`, `line 3`, `byte offset 20, line 3`."""
        number = int(self.numbers[index])
        if self.is_text:
            number += self.document(index)[:byte].count(b"\n")
        return f"{self.unit} {number}" if self.offsets is None else f"byte offset {int(self.offsets[index]) + byte}, line {number}"

    def select(self, mask: np.ndarray) -> "RawDocuments":
        """The documents at which `mask` [D] is true."""
        if mask.all():
            return self
        lengths = np.diff(self.ends, prepend=0)
        offsets = None if self.offsets is None else self.offsets[mask]
        data = self.data[np.repeat(mask, lengths)]
        return replace(self, data=data, ends=np.cumsum(lengths[mask]), numbers=self.numbers[mask], offsets=offsets)

    def delete_bytes(self, indices: np.ndarray) -> "RawDocuments":
        """The documents without the bytes of `data` at `indices`, which ascend."""
        return replace(self, data=np.delete(self.data, indices), ends=self.ends - np.searchsorted(indices, self.ends))

    def replace_documents(self, changes: Mapping[int, bytes]) -> "RawDocuments":
        """The documents with some of them, by ascending index, replaced."""
        pieces: list[Any] = []
        copied = 0
        lengths, starts = np.diff(self.ends, prepend=0), self.starts
        for index, document in changes.items():
            pieces += [self.data[copied : starts[index]].data, document]
            copied = int(self.ends[index])
            lengths[index] = len(document)
        data = b"".join([*pieces, self.data[copied:].data])
        return replace(self, data=np.frombuffer(data, np.uint8), ends=np.cumsum(lengths))

    @staticmethod
    def joined(files: Sequence["RawDocuments"]) -> "RawDocuments":
        """Files that are a document each, as one block; positions in it mean nothing."""
        ends = np.cumsum([len(file.data) for file in files])
        names = pa.array([file.source.name for file in files], pa.string())
        data = np.concatenate([file.data for file in files])
        return RawDocuments(files[0].source, data, ends, np.arange(1, len(files) + 1), is_text=True, names=names)

    def named(self) -> DocumentBlock:
        """The documents under their names."""
        if self.names is not None:
            names = self.names.take(pa.array(self.numbers - 1))
        elif self.numbered:
            names = pc.binary_join_element_wise(self.source.name, pa.array(self.numbers).cast(pa.string()), ":")
        else:
            names = pa.array([self.source.name] * len(self.ends), pa.string())
        return DocumentBlock(names, self.data, self.ends)

"""A block of documents in memory: their UTF-8 texts end to end, so that text is processed in bulk.

Shapes: D documents, B bytes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from packlm.text import whitespace

_MAX_CACHED_BYTES = 1 << 24


@dataclass(frozen=True)
class DocumentBlock:
    """Documents end to end."""

    names: pa.StringArray
    """[D] name of each document."""
    data: np.ndarray
    """[B] uint8: the documents' UTF-8, with nothing between them."""
    ends: np.ndarray
    """[D] int64: index in `data` after each document."""

    @staticmethod
    def of(documents: Iterable[tuple[str, str]]) -> "DocumentBlock":
        """A block of (name, text) pairs."""
        pairs = list(documents)
        encoded = [text.encode() for _, text in pairs]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return DocumentBlock(pa.array([name for name, _ in pairs], pa.string()), np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(name, text) of each document."""
        start = 0
        for name, end in zip(self.names.to_pylist(), self.ends.tolist(), strict=True):
            yield name, self.data[start:end].tobytes().decode()
            start = end

    def __getitem__(self, selection: slice) -> "DocumentBlock":
        """Consecutive documents, without copying their text."""
        low, high, _ = selection.indices(len(self))
        start = self.starts[low] if low < len(self) else 0
        ends = self.ends[low:high]
        return DocumentBlock(self.names[low:high], self.data[start : ends[-1] if len(ends) else start], ends - start)

    @property
    def starts(self) -> np.ndarray:
        """[D] int64: index in `data` of each document's first byte."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[: len(self.ends)]

    @cached_property
    def edges(self) -> np.ndarray | None:
        """`whitespace.word_edges` of `data`; None for long texts, for which they would take too much memory to keep."""
        return whitespace.word_edges(self.data) if len(self.data) <= _MAX_CACHED_BYTES else None

    def word_edges(self) -> np.ndarray:
        """`whitespace.word_edges` of `data`, computed anew where they are not kept."""
        return whitespace.word_edges(self.data) if self.edges is None else self.edges

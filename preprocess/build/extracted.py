"""Extracted files: the documents of one extraction task, cleaned, as all later steps read them.

An Arrow IPC file, compressed by LZ4, each record batch a block of D documents:

    name: string
    split: uint8               index into SPLITS
    text: large_string
    pieces: list<int32>        with `corpus.sentences = sentencex`: the bytes at which sentences start; else null, as they are found fast
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from packlm.config import Corpus
from packlm.text import sentences
from packlm.text.document_block import DocumentBlock

_SCHEMA = pa.schema({"name": pa.string(), "split": pa.uint8(), "text": pa.large_string(), "pieces": pa.list_(pa.int32())})


class ExtractedWriter:
    """Writes an extracted file to a stream. A context manager: the file is complete on exit."""

    def __init__(self, stream: IO[bytes], corpus: Corpus):
        self._file = pa.ipc.new_file(stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._corpus = corpus

    def __enter__(self) -> "ExtractedWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, texts: DocumentBlock, splits: np.ndarray) -> None:
        """Adds a block of documents; `splits`: [D] uint8 index into SPLITS."""
        offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), texts.ends]))
        text = pa.LargeStringArray.from_buffers(len(texts), offsets, pa.py_buffer(np.ascontiguousarray(texts.data)))
        pieces = pa.nulls(len(texts), _SCHEMA.field("pieces").type)
        if self._corpus.sentences == "sentencex":
            pieces = _piece_lists(texts, sentences.piece_starts(texts, self._corpus.sentences, self._corpus.language))
        self._file.write_batch(pa.record_batch([texts.names, pa.array(splits), text, pieces], schema=_SCHEMA))


def read(path: Path, first: int, split: int, keep: np.ndarray | None = None) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
    """Reads the documents of a split, block by block.

    Args:
        first: index of the first block.
        split: index into SPLITS.
        keep: bool for each document of any split from block `first` on; others are skipped. None keeps all.

    Yields:
        (documents, starts of their sentence pieces as `sentences.piece_starts` finds them, or None if they are not in the file); a block
        may be empty.
    """
    for batch in batches(path, first):
        selected = split_column(batch) == split
        if keep is not None:
            selected, keep = selected & keep[: len(selected)], keep[len(selected) :]
        yield _block(batch if selected.all() else batch.filter(pa.array(selected)))


def batches(path: Path, first: int = 0) -> Iterator[pa.RecordBatch]:
    """The record batches of an extracted file from index `first` on."""
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for index in range(first, file.num_record_batches):
            yield file.get_batch(index)


def split_column(batch: pa.RecordBatch) -> np.ndarray:
    """[D] uint8: the split of each document of a block."""
    column = batch.column("split")
    # Not to_numpy, which imports pandas: half a second, for which all workers would wait in the planning step.
    return np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset : column.offset + len(column)]


def lengths(batch: pa.RecordBatch) -> np.ndarray:
    """[D] int64: bytes of each document of a block."""
    return np.diff(_offsets(batch.column("text")))


def _offsets(text: pa.LargeStringArray) -> np.ndarray:
    return np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]


def _piece_lists(texts: DocumentBlock, starts: np.ndarray) -> pa.ListArray:
    """[D] starts of the pieces of each document, relative to its first byte."""
    bounds = np.searchsorted(starts, np.append(texts.starts, len(texts.data)))
    relative = starts - np.repeat(texts.starts, np.diff(bounds))
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(relative.astype(np.int32)))


def _block(batch: pa.RecordBatch) -> tuple[DocumentBlock, np.ndarray | None]:
    text, pieces = batch.column("text"), batch.column("pieces")
    offsets = _offsets(text)
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    texts = DocumentBlock(batch.column("name"), data, offsets[1:] - offsets[0])
    if pieces.null_count:
        return texts, None
    return texts, pieces.flatten().to_numpy() + np.repeat(texts.starts, pieces.value_lengths().to_numpy())

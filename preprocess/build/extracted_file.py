"""Extracted files: the documents of one extraction task, cleaned, as all later steps read them.

An Arrow IPC file, compressed by LZ4, each record batch a block of D documents:

    name: string
    split: uint8               index into SPLITS
    text: large_string
    pieces: list<int32>        with `corpus.sentences = sentencex`: the bytes at which sentences start; else null, as they are found fast
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from packlm.config import Corpus
from packlm.text import sentences
from packlm.text.document_block import DocumentBlock

_SCHEMA = pa.schema({"name": pa.string(), "split": pa.uint8(), "text": pa.large_string(), "pieces": pa.list_(pa.int32())})


@dataclass(frozen=True)
class ExtractedFile:
    """An extracted file of K blocks, and how much text of each split they hold."""

    path: Path
    documents: np.ndarray
    """[K, splits] int64: documents, without those that `keep` drops."""
    bytes: np.ndarray
    """[K, splits] int64: bytes of these."""
    block_sizes: np.ndarray
    """[K] int64: documents of each block, including those that `keep` drops."""
    keep: Path | None = None
    """A .npy file: bool for each document, false for duplicates. None if the file has none."""

    def keep_from(self, block: int) -> "KeepMask | None":
        """The part of `keep` for the documents from a block on."""
        return KeepMask(self.keep, int(self.block_sizes[:block].sum())) if self.keep else None


@dataclass(frozen=True)
class KeepMask:
    """Which documents of an extracted file are kept, from one on."""

    path: Path
    start: int

    def load(self) -> np.ndarray:
        """bool, memory-mapped."""
        return np.load(self.path, mmap_mode="r")[self.start :]


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


def read(path: Path, first: int, split: int, keep: KeepMask | None = None) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
    """Reads the documents of a split, block by block.

    Args:
        first: index of the first block.
        split: index into SPLITS.
        keep: which documents to read, from block `first` on; None for all.

    Yields:
        (documents, starts of their sentence pieces as `sentences.piece_starts` finds them, or None if they are not in the file); a block
        may be empty.
    """
    mask = None if keep is None else keep.load()
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for index in range(first, file.num_record_batches):
            batch = file.get_batch(index)
            selected = _split_column(batch) == split
            if mask is not None:
                selected, mask = selected & mask[: len(selected)], mask[len(selected) :]
            yield _block(batch if selected.all() else batch.filter(pa.array(selected)))


def _split_column(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column("split")
    # Not to_numpy, which imports pandas: half a second, for which all workers would wait in the planning step.
    return np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset : column.offset + len(column)]


def _piece_lists(texts: DocumentBlock, starts: np.ndarray) -> pa.ListArray:
    """[D] starts of the pieces of each document, relative to its first byte."""
    bounds = np.searchsorted(starts, np.append(texts.starts, len(texts.data)))
    relative = starts - np.repeat(texts.starts, np.diff(bounds))
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(relative.astype(np.int32)))


def _block(batch: pa.RecordBatch) -> tuple[DocumentBlock, np.ndarray | None]:
    text, pieces = batch.column("text"), batch.column("pieces")
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    texts = DocumentBlock(batch.column("name"), data, offsets[1:] - offsets[0])
    if pieces.null_count:
        return texts, None
    return texts, pieces.flatten().to_numpy() + np.repeat(texts.starts, pieces.value_lengths().to_numpy())

"""Collected files: what a collect task leaves, read by everything after it. A record batch is a block of documents:

    name: string    split: uint8 (its place in SPLITS)    pieces: list<int32> (sentencex: where they start)
    text: large_string, or else start and length: int64, where its bytes stand in the file that the block's metadata name

Text that cleaning has left as it stands in a plain UTF-8 file is not copied: it is read there again, and the file must be as it was.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.sources import State, state_of
from packlm.text import sentences
from packlm.text.document_block import DocumentBlock

_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "split": pa.uint8(),
        "pieces": pa.list_(pa.int32()),
        "text": pa.large_string(),
        "start": pa.int64(),
        "length": pa.int64(),
    }
)


class ExtractedWriter:
    """Writes a collected file to a stream. As a context manager: the file is whole once the block has ended."""

    def __init__(self, stream: IO[bytes], rules: Corpus):
        self._file = pa.ipc.new_file(stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._rules = rules
        self._states: dict[Path, State | None] = {}  # of the files in which text stands that was not copied

    def __enter__(self) -> "ExtractedWriter":
        return self

    def __exit__(self, *about: object) -> None:
        self._file.close()

    def write(self, texts: DocumentBlock, splits: np.ndarray) -> None:
        """Adds a block: documents, and [D] uint8 the place of each one's split in SPLITS."""
        count, place = len(texts), texts.verbatim
        offsets = np.concatenate([np.zeros(1, np.int64), texts.ends])
        columns = {name: pa.nulls(count, _SCHEMA.field(name).type) for name in ("pieces", "text", "start", "length")}
        columns |= {"name": texts.names, "split": pa.array(splits)}
        if self._rules.sentences == "sentencex":
            columns["pieces"] = _pieces(texts, sentences.piece_starts(texts, self._rules.sentences, self._rules.language))
        metadata = None
        if place is None:
            data = pa.py_buffer(np.ascontiguousarray(texts.data))
            columns["text"] = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), data)
        else:
            columns |= {"start": pa.array(place.starts), "length": pa.array(np.diff(offsets))}
            found = self._states.setdefault(place.path, _state(place.path))
            metadata = {"file": json.dumps([str(place.path), found])}
        self._file.write_batch(pa.record_batch(columns, schema=_SCHEMA), custom_metadata=metadata)


def read(path: Path, first: int, split: int, kept: np.ndarray | None = None) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
    """The documents of a split (its place in SPLITS) in a collected file, block by block from batch `first` on.

    Args:
        kept: bool for each document from that batch on, of whatever split: those that are no duplicates; None: all.

    Yields (documents, where their sentence pieces start, or None where that is quickly found again); blocks may be empty.

    Raises:
        PacklmError: a file in which text stands was changed since, or cannot be read.
    """
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for number in range(first, file.num_record_batches):
            batch, metadata = file.get_batch_with_custom_metadata(number)
            chosen = split_column(batch) == split
            if kept is not None:
                chosen, kept = chosen & kept[: len(chosen)], kept[len(chosen) :]
            yield _texts(batch if chosen.all() else batch.filter(pa.array(chosen)), metadata)


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """All blocks of a collected file."""
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def split_column(batch: pa.RecordBatch) -> np.ndarray:
    """[D] uint8: the split of each document of a block."""
    return _numbers(batch.column("split"), np.uint8)


def lengths(batch: pa.RecordBatch) -> np.ndarray:
    """[D] int64: bytes of each document of a block."""
    given = batch.column("length")
    return np.diff(_offsets(batch.column("text"))) if given.null_count else _numbers(given, np.int64)


def _state(path: Path) -> State | None:
    """The state of a file; None where it is gone, which whoever reads it will find out."""
    try:
        return state_of(path.stat())
    except OSError:
        return None


def _pieces(texts: DocumentBlock, starts: np.ndarray) -> pa.ListArray:
    """[D] where the pieces of each document start, counted from its own first byte."""
    bounds = np.searchsorted(starts, np.append(texts.starts, len(texts.data)))
    relative = starts - np.repeat(texts.starts, np.diff(bounds))
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(relative.astype(np.int32)))


def _numbers(column: pa.Array, kind: type) -> np.ndarray:
    # Not to_numpy: that imports pandas, for which the process that plans would make everybody wait.
    return np.frombuffer(column.buffers()[1] or b"", kind)[column.offset : column.offset + len(column)]


def _offsets(text: pa.LargeStringArray) -> np.ndarray:
    return np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]


def _texts(batch: pa.RecordBatch, metadata: "pa.KeyValueMetadata | None") -> tuple[DocumentBlock, np.ndarray | None]:
    text, lists = batch.column("text"), batch.column("pieces")
    if metadata is None:
        offsets = _offsets(text)
        data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
        ends = offsets[1:] - offsets[0]
    else:
        file, found = json.loads(metadata[b"file"])
        sizes = lengths(batch)
        data, ends = _standing(Path(file), tuple(found), _numbers(batch.column("start"), np.int64), sizes), np.cumsum(sizes)
    texts = DocumentBlock(batch.column("name"), data, ends)
    if lists.null_count:
        return texts, None
    return texts, lists.flatten().to_numpy() + np.repeat(texts.starts, lists.value_lengths().to_numpy())


def _standing(path: Path, before: State, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The bytes of documents, end to end, that stand in a file at `starts` [D] with whatever lies between them."""
    if not len(starts):
        return np.empty(0, np.uint8)
    base, stop = int(starts[0]), int(starts[-1] + sizes[-1])
    try:
        with open(path, "rb") as stream:
            stream.seek(base)
            data = np.frombuffer(stream.read(stop - base), np.uint8)
            after = state_of(os.fstat(stream.fileno()))
    except OSError as error:
        raise PacklmError(f"{path}: cannot be read: {error.strerror}") from None
    if after != before:
        raise PacklmError(f"{path}: changed while it was being read; run the same command again")
    if len(data) == sizes.sum():
        return data
    # Not `gather`, whose index takes eight bytes for each byte of text.
    bounds = np.stack([starts, starts + sizes], axis=1).reshape(-1) - base
    return data[np.repeat(np.arange(len(bounds)) % 2 == 1, np.diff(bounds, prepend=0))]

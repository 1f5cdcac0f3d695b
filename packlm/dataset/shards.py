"""Shards: the Parquet files of both views, their columns, and the writer."""

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base import files
from packlm.dataset.manifest import View

ROW_GROUP = {"fixed": 4096, "sentences": 16384}
_WRITER_OPTIONS: dict[str, dict[str, Any]] = {
    "fixed": {"use_dictionary": False, "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT"}},
    "sentences": {
        "use_dictionary": ["position", "lead", "gap"],
        "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT", "document": "DELTA_BYTE_ARRAY"},
    },
}
"""Encodings by view. Ids are small numbers in two or four bytes: split into streams of bytes, the high ones compress fast and to little.
Consecutive document names differ only in their last digits."""


def shard_name(view: View, split: str, index: int, count: int) -> str:
    """`fixed/train-00000-of-00008.parquet`, relative to the dataset's folder."""
    return f"{view}/{split}-{index:05d}-of-{count:05d}.parquet"


def id_type(vocab_size: int) -> "np.dtype[Any]":
    """uint16 where the vocabulary allows, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


@dataclass(frozen=True)
class ColumnTypes:
    """What determines the types of a dataset's columns."""

    vocab_size: int
    length: int
    """Targets in a fixed row."""


def fixed_table(
    ids: np.ndarray, openings: np.ndarray, starts: np.ndarray, stops: np.ndarray, previous: int, column_types: ColumnTypes
) -> pa.Table:
    """Rows of the fixed view.

    Args:
        ids: [N] target ids, in order.
        openings: ascending indices of the targets that open a document.
        starts, stops: [R] targets [start, stop) of each row, contiguous, at most `column_types.length` of them.
        previous: the id before the first target.

    Returns a table with, for each row: `ids`, length + 1 ids of which the first is the input before the first target (a short row is
    padded with its own last id, which `num_targets` excludes); `begins`, each p for which target ids[p + 1] opens a document;
    `num_targets`.
    """
    width = column_types.length + 1
    padded = np.zeros(len(ids) + width, id_type(column_types.vocab_size))
    padded[0], padded[1 : len(ids) + 1] = previous, ids
    # Row by row: an index of every id would take four times the memory of the ids, or more.
    rows = np.lib.stride_tricks.sliding_window_view(padded, width)[starts]
    short = np.flatnonzero(stops - starts < column_types.length)
    rows[short] = np.where(np.arange(width) > (stops - starts)[short, None], padded[stops[short], None], rows[short])
    low, high = np.searchsorted(openings, starts), np.searchsorted(openings, stops)
    begins = openings[low[0] : high[-1]] - np.repeat(starts, high - low) if len(starts) else openings[:0]
    offsets = np.concatenate([low, high[-1:]]) - low[:1] if len(starts) else np.zeros(1)
    schema = _schema("fixed", column_types)
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=schema.field("ids").type)
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(begins.astype(np.int32)))
    return pa.table({"ids": values, "begins": lists, "num_targets": (stops - starts).astype(np.int32)}, schema=schema)


def sentences_table(ids: np.ndarray, ends: np.ndarray, columns: dict[str, Any], column_types: ColumnTypes) -> pa.Table:
    """Rows of the sentences view.

    Args:
        ids: [N] ids of all sentences end to end, each ending in `<eos>`.
        ends: [S] index in `ids` after each sentence's `<eos>`.
        columns: [S] each: `document`, `position` (name of the document, index of the sentence in it), `words`, `bytes` (of the sentence
            itself), `joined` (a piece of an overlong sentence that continues in the next row), `lead` (whitespace before a document's
            first sentence), `gap` (whitespace after the sentence).
    """
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids.astype(id_type(column_types.vocab_size), copy=False)))
    return pa.table({"ids": lists, **columns}, schema=_schema("sentences", column_types))


def _schema(view: View, column_types: ColumnTypes) -> pa.Schema:
    """Arrow schema with the features that `datasets` reads from a Parquet file's metadata."""
    kind = id_type(column_types.vocab_size).name
    id_value, number, text, mark = ({"dtype": name, "_type": "Value"} for name in (kind, "int32", "string", "bool"))
    features: dict[str, Any]
    if view == "fixed":
        types: dict[str, pa.DataType] = {"ids": pa.list_(pa.from_numpy_dtype(kind), column_types.length + 1)}
        types |= {"begins": pa.list_(pa.int32()), "num_targets": pa.int32()}
        features = {
            "ids": {"feature": id_value, "length": column_types.length + 1, "_type": "List"},
            "begins": {"feature": number, "_type": "List"},
            "num_targets": number,
        }
    else:
        types = {"ids": pa.list_(pa.from_numpy_dtype(kind)), "document": pa.string(), "position": pa.int32(), "words": pa.int32()}
        types |= {"bytes": pa.int32(), "joined": pa.bool_(), "lead": pa.string(), "gap": pa.string()}
        features = {"ids": {"feature": id_value, "_type": "List"}, "document": text, "position": number, "words": number}
        features |= {"bytes": number, "joined": mark, "lead": text, "gap": text}
    return pa.schema(list(types.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


class ShardWriter:
    """Writes one shard's Parquet file atomically, in row groups that do not depend on the sizes of the tables written.

    A context manager: the file exists once the block has ended without an error; `rows` counts the rows written.
    """

    def __init__(self, path: Path, view: View, column_types: ColumnTypes):
        self.path, self.view = Path(path), view
        self._group_rows = ROW_GROUP[view]
        self._schema = _schema(view, column_types)
        self._options: dict[str, Any] = {"compression": "zstd", **_WRITER_OPTIONS[view]}
        self._pending: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> "ShardWriter":
        self._stack = ExitStack()
        stream = self._stack.enter_context(files.atomic(self.path))
        self._parquet = self._stack.enter_context(pq.ParquetWriter(stream, self._schema, **self._options))
        return self

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self.rows += table.num_rows
        self._pending.append(table)
        num_rows = sum(pending.num_rows for pending in self._pending)
        if num_rows >= self._group_rows:
            rows = pa.concat_tables(self._pending).combine_chunks()
            complete = num_rows - num_rows % self._group_rows
            for start in range(0, complete, self._group_rows):
                self._parquet.write_table(rows.slice(start, self._group_rows), row_group_size=self._group_rows)
            self._pending = [rows.slice(complete)]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            rows = pa.concat_tables([self._schema.empty_table(), *self._pending]).combine_chunks()
            if rows.num_rows:
                self._parquet.write_table(rows, row_group_size=self._group_rows)
        self._stack.__exit__(kind, error, trace)


def ids_digest(ids: np.ndarray) -> str:
    """The SHA-256 of ids as little-endian uint32, whatever type they are stored in."""
    return hashlib.sha256(np.ascontiguousarray(ids, dtype="<u4").tobytes()).hexdigest()

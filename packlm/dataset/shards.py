"""The shards of a dataset: the Parquet files of both views, their columns and how they are written."""

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
_WRITING: dict[str, dict[str, Any]] = {
    "fixed": {"use_dictionary": False, "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT"}},
    "sentences": {
        "use_dictionary": ["position", "lead", "gap"],
        "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT", "document": "DELTA_BYTE_ARRAY"},
    },
}
"""How Parquet is told to write. Ids are small numbers in four bytes: the streams of their high bytes are quick to compress and small.
Names of lines differ in their last digits only."""


def shard_name(view: View, split: str, index: int, count: int) -> str:
    """`fixed/train-00000-of-00008.parquet`, relative to the dataset's folder."""
    return f"{view}/{split}-{index:05d}-of-{count:05d}.parquet"


def id_type(vocab_size: int) -> "np.dtype[Any]":
    """uint16 where the vocabulary allows, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


@dataclass(frozen=True)
class ColumnTypes:
    """What the types of a dataset's columns follow from."""

    vocab_size: int
    length: int
    """Targets in a fixed row."""


def fixed_table(ids: np.ndarray, opens: np.ndarray, starts: np.ndarray, stops: np.ndarray, before: int, like: "ColumnTypes") -> pa.Table:
    """Rows of the fixed view.

    Args:
        ids: [N] target ids, in order.
        opens: rising indices of those that open a document.
        starts, stops: [R] targets [start, stop) of each row, end to end, at most `like.length` of them.
        before: the id that precedes the first target.

    Returns a table with, for each row: `ids`, length + 1 ids of which the first is the input before the first target (a short
    row is filled up with its own last id, which `num_targets` leaves out); `begins`, each p where target ids[p + 1] opens a
    document; `num_targets`.
    """
    width = like.length + 1
    padded = np.zeros(len(ids) + width, id_type(like.vocab_size))
    padded[0], padded[1 : len(ids) + 1] = before, ids
    # Row by row: an index of every id would take four times the memory of the ids, or more.
    rows = np.lib.stride_tricks.sliding_window_view(padded, width)[starts]
    short = np.flatnonzero(stops - starts < like.length)
    rows[short] = np.where(np.arange(width) > (stops - starts)[short, None], padded[stops[short], None], rows[short])
    low, high = np.searchsorted(opens, starts), np.searchsorted(opens, stops)
    begins = opens[low[0] : high[-1]] - np.repeat(starts, high - low) if len(starts) else opens[:0]
    offsets = np.concatenate([low, high[-1:]]) - low[:1] if len(starts) else np.zeros(1)
    schema = _schema("fixed", like)
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=schema.field("ids").type)
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(begins.astype(np.int32)))
    return pa.table({"ids": values, "begins": lists, "num_targets": (stops - starts).astype(np.int32)}, schema=schema)


def sentences_table(ids: np.ndarray, ends: np.ndarray, columns: dict[str, Any], like: "ColumnTypes") -> pa.Table:
    """Rows of the sentences view.

    Args:
        ids: [N] ids of all sentences end to end, each ending in `<eos>`.
        ends: [S] index in `ids` after each sentence's `<eos>`.
        columns: [S] each: `document`, `position` (the document's name and the sentence's number in it, from 0), `words`, `bytes` (of the
            sentence's own text), `joined` (an overlong sentence that goes on in the next row), `lead`, `gap` (white space before it,
            only where it opens a document, and after it).
    """
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids.astype(id_type(like.vocab_size), copy=False)))
    return pa.table({"ids": lists, **columns}, schema=_schema("sentences", like))


def _schema(view: View, like: ColumnTypes) -> pa.Schema:
    """Arrow schema with the features that `datasets` reads from a Parquet file's metadata."""
    kind = id_type(like.vocab_size).name
    id_value, number, text, mark = ({"dtype": name, "_type": "Value"} for name in (kind, "int32", "string", "bool"))
    features: dict[str, Any]
    if view == "fixed":
        types: dict[str, pa.DataType] = {"ids": pa.list_(pa.from_numpy_dtype(kind), like.length + 1)}
        types |= {"begins": pa.list_(pa.int32()), "num_targets": pa.int32()}
        features = {
            "ids": {"feature": id_value, "length": like.length + 1, "_type": "List"},
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
    """Writes one shard's Parquet file, atomically, in row groups that do not depend on how its tables were cut.

    As a context manager: the file is there once the block has ended well; `rows` counts what was written.
    """

    def __init__(self, path: Path, view: View, like: ColumnTypes):
        self.path, self.view = Path(path), view
        self._size = ROW_GROUP[view]
        self._schema = _schema(view, like)
        self._options: dict[str, Any] = {"compression": "zstd", **_WRITING[view]}
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> "ShardWriter":
        self._open = ExitStack()
        stream = self._open.enter_context(files.atomic(self.path))
        self._parquet = self._open.enter_context(pq.ParquetWriter(stream, self._schema, **self._options))
        return self

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self.rows += table.num_rows
        self._waiting.append(table)
        held = sum(part.num_rows for part in self._waiting)
        if held >= self._size:
            whole = pa.concat_tables(self._waiting).combine_chunks()
            for start in range(0, held - held % self._size, self._size):
                self._parquet.write_table(whole.slice(start, self._size), row_group_size=self._size)
            self._waiting = [whole.slice(held - held % self._size)]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            rest = pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
            if rest.num_rows:
                self._parquet.write_table(rest, row_group_size=self._size)
        self._open.__exit__(kind, error, trace)


def ids_digest(ids: np.ndarray) -> str:
    """The SHA-256 of ids as little-endian uint32, whatever type they are stored in."""
    return hashlib.sha256(np.ascontiguousarray(ids, dtype="<u4").tobytes()).hexdigest()

"""Files of hidden states, a row or vector for each word or token.

    parquet   columns `file` (if there are several), `item`, `sentence`, `position`, `word` or `token`, and for each layer `layer_K`, a list
              of numbers; written as it is computed, so of any size
    npz       NumPy arrays by the same names, `layer_K` of shape [words, units]; from memory

`sentence` is the number of the input's line (a table's header aside); `item` that of the input, as JSON if it is not a string, else the
number of the document. Numbers are float32.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base import files, json_text
from packlm.scoring.states import SentenceStates

from ..score.sentence_files import Row

ROWS = 4096
"""Rows of a row group."""


def write(path: Path, results: Iterable[tuple[Row, SentenceStates | None]], widths: Mapping[int, int], unit: str, several: bool) -> None:
    """Writes the states of sentences atomically; rows with an error have none.

    Args:
        widths: layer -> units.
        unit: word or token.
        several: whether there are several files.
    """
    schema = pa.schema([
        *([("file", pa.string())] if several else []), ("item", pa.string()), ("sentence", pa.int64()), ("position", pa.int32()),
        (unit, pa.string()), *((f"layer_{layer}", pa.list_(pa.float32(), width)) for layer, width in widths.items()),
    ])  # fmt: skip
    if path.suffix == ".npz":
        table = pa.concat_tables([schema.empty_table(), *_tables(results, schema, widths)])
        arrays = {name: _array(table.column(name).combine_chunks()) for name in schema.names}
        with files.atomic(path) as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        return
    with files.atomic(path) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for table in _tables(results, schema, widths):
            writer.write_table(table)


def _tables(results: Iterable[tuple[Row, SentenceStates | None]], schema: pa.Schema, widths: Mapping[int, int]) -> Iterator[pa.Table]:
    """Tables of about `ROWS` rows."""
    columns: list[list[object]] = [[] for _ in schema.names[: -len(widths)]]
    vectors: list[list[np.ndarray]] = [[] for _ in widths]
    for row, states in results:
        for position, name in enumerate(states.units if states else [], 1):
            own = [row.file] if "file" in schema.names else []
            item = row.item if isinstance(row.item, str) else json_text.dumps(row.item)
            for column, value in zip(columns, [*own, item, row.number, position, name], strict=True):
                column.append(value)
        for parts, of_layer in zip(vectors, states.layers if states else (), strict=bool(states)):
            parts.append(of_layer)
        if len(columns[0]) >= ROWS:
            yield _table(columns, vectors, schema)
            columns, vectors = [[] for _ in columns], [[] for _ in vectors]
    if columns[0]:
        yield _table(columns, vectors, schema)


def _table(columns: list[list[object]], vectors: list[list[np.ndarray]], schema: pa.Schema) -> pa.Table:
    lists = [pa.FixedSizeListArray.from_arrays(np.concatenate(parts).ravel(), parts[0].shape[1]) for parts in vectors]
    plain = [pa.array(values, schema.field(index).type) for index, values in enumerate(columns)]
    return pa.Table.from_arrays([*plain, *lists], schema=schema)


def _array(column: pa.Array) -> np.ndarray:
    """A column as an array: strings as NumPy's, vectors as a matrix."""
    if pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.flatten()).reshape(-1, column.type.list_size)
    return np.array(column.to_pylist(), dtype=None if pa.types.is_integer(column.type) else str)

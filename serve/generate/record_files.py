"""Records of generations as a file: JSON lines, or Parquet where the name ends in `.parquet`."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base import files

ROWS = 10_000
"""Records of a row group."""

SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("id", pa.string()),  # as JSON where it is no string: the ids of one file may be of any kinds
        ("prompt", pa.string()),
        ("unknown", pa.int64()),
        ("error", pa.string()),
        (
            "generations",
            pa.list_(
                pa.struct([("text", pa.string()), ("log_prob", pa.float64()), ("tokens", pa.int64()), ("finished", pa.bool_())])
            ),
        ),
    ]
)  # fmt: skip


def write_records(path: Path, records: Iterable[str], seen: Callable[[dict[str, Any]], None]) -> None:
    """Writes records, each a JSON object in a line, atomically; shows each to `seen`."""
    if path.suffix == ".parquet":
        with files.atomic(path) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer:
            rows = map(_row, _shown(records, seen))
            while some := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist(some, SCHEMA))
        return
    with files.atomic(path, "w") as stream:
        for record in records:
            seen(json.loads(record))
            stream.write(record + "\n")


def _shown(records: Iterable[str], seen: Callable[[dict[str, Any]], None]) -> Iterator[dict[str, Any]]:
    for record in records:
        value = json.loads(record)
        seen(value)
        yield value


def _row(record: dict[str, Any]) -> dict[str, Any]:
    id = record.get("id")
    return record | {"id": id if id is None or isinstance(id, str) else json.dumps(id, ensure_ascii=False)}

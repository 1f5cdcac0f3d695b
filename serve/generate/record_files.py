"""Writes the records of a batch job: JSON lines, or Parquet if the file's name ends in `.parquet`."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base import files, json_text

ROWS = 10_000
"""Records in a row group."""

SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("id", pa.string()),  # as JSON if it is not a string: the ids of one file may have any types
        ("settings", pa.string()),  # as JSON
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


def write_records(path: Path, records: Iterable[str]) -> None:
    """Writes records, each a JSON object on one line, atomically."""
    if path.suffix == ".parquet":
        with files.atomic(path) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer:
            rows = map(_row, records)
            while group := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist(group, SCHEMA))
        return
    with files.atomic(path, "w") as stream:
        stream.writelines(f"{record}\n" for record in records)


def _row(record: str) -> dict[str, Any]:
    row: dict[str, Any] = json_text.loads(record)
    id, settings = row.get("id"), row.get("settings")
    row |= {"settings": settings and json_text.dumps(settings)}
    return row | {"id": id if id is None or isinstance(id, str) else json_text.dumps(id)}

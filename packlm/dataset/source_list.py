"""The sources that a dataset was made from, in `sources.parquet`: hundreds of thousands in some corpora, read only by preprocessing."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base import files, verified_files
from packlm.dataset.manifest import Manifest, described

SOURCES = "sources.parquet"


def corpus_digest(sources: Mapping[str, str]) -> str:
    """The digest of all sources, name -> SHA-256 of its bytes, in order."""
    return files.digest(list(sources.items()))


def write_sources(folder: Path, sources: Mapping[str, str]) -> None:
    """Writes the sources: name -> SHA-256 of its bytes."""
    table = pa.table({"source": pa.array(sources.keys(), pa.string()), "sha256": pa.array(sources.values(), pa.string())})
    with files.atomic(folder / SOURCES) as stream:
        pq.write_table(table, stream, compression="zstd", use_dictionary=False, column_encoding={"source": "DELTA_BYTE_ARRAY"})


def read_sources(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The sources of a dataset in order: name -> SHA-256 of its bytes; `PacklmError` if the file is not the one of the manifest."""
    with described(folder, manifest), verified_files.open_checked(folder / SOURCES, manifest.files[SOURCES]) as stream:
        table = pq.read_table(stream)
    return dict(zip(table["source"].to_pylist(), table["sha256"].to_pylist(), strict=True))

"""The record batches of a view of a split, memory-mapped: `datasets` converts the Parquet shards to Arrow files, once for all copies of a
dataset, in its cache folder, keyed by the content's digest.

Shards are held against the manifest before they are converted, and the Arrow files against the digests that they had when they were
made.
"""

import glob
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.constants import HF_HOME

from packlm import dataset
from packlm.base import sealed_json, verified_files
from packlm.base.errors import PacklmError

log = logging.getLogger("packlm")

_RECORD = "packlm.json"
"""The digests of the Arrow files in a folder of the cache."""


def record_batches(folder: Path, manifest: dataset.Manifest, view: dataset.View, split: str) -> Iterator[pa.RecordBatch]:
    """The record batches of a view of a split, one at a time: a table of all of them takes more memory than what is kept of them.

    Raises:
        PacklmError: a shard is missing, damaged, or written to meanwhile.
    """
    from filelock import FileLock

    cache = _datasets_cache() / "packlm" / manifest.digests["content"][:32]
    shards = {path.resolve(): sha256 for path, sha256 in dataset.shard_digests(folder, manifest, view, split).items()}
    cache.mkdir(parents=True, exist_ok=True)
    with dataset.described(folder, manifest), FileLock(cache / f"{view}-{split}.lock"):
        before = verified_files.check(shards, cache / "verified")
        _check_ids(shards, manifest.vocab_size)
        converted = cache / f"{view}-{split}"
        arrow_files = _converted(converted, cache / "verified") or _convert(shards, split, converted, cache / "verified")
        if verified_files.states(shards) != before:  # the cache may hold what has taken the place of the shards
            shutil.rmtree(converted, ignore_errors=True)
            raise verified_files.Damaged(f"{folder}: written to while it was being read")
    for path in arrow_files:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as batches:
            yield from (batch for batch in batches if batch.num_rows)


def _datasets_cache() -> Path:
    """The cache folder of `datasets`, without importing it, which takes a second."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME, "datasets"))


def _converted(folder: Path, memory: Path) -> list[Path]:
    """The Arrow files that `_convert` made in a folder before; none if there are none, or they are not as they were then."""
    record = folder / _RECORD
    if not record.exists():
        return []
    try:
        digests = sealed_json.read(record, dict[str, str], "delete its folder")
        verified_files.check({folder / name: sha256 for name, sha256 in digests.items()}, memory)
    except PacklmError as error:
        log.warning("%s; the shards are converted again", error)
        return []
    return [folder / name for name in digests]


def _convert(shards: Iterable[Path], split: str, folder: Path, memory: Path) -> list[Path]:
    """Has `datasets` convert shards to Arrow files in a folder, in place of what is there, and records their digests."""
    import datasets

    shutil.rmtree(folder, ignore_errors=True)
    datasets.disable_progress_bars()
    data_files = {split: [glob.escape(str(path)) for path in shards]}
    builder = datasets.load_dataset_builder("parquet", data_files=data_files, cache_dir=str(folder))
    builder.download_and_prepare()
    made = verified_files.digests(sorted(Path(builder.cache_dir).glob("*.arrow")), memory)
    sealed_json.write(folder / _RECORD, {str(path.relative_to(folder)): sha256 for path, sha256 in made.items()})
    return list(made)


def _check_ids(shards: Iterable[Path], vocab_size: int) -> None:
    """Raises `PacklmError` if there are ids beyond the vocabulary, by the statistics in the files' metadata."""
    for path in shards:
        groups = pq.ParquetFile(path).metadata
        for group in range(groups.num_row_groups):
            statistics = groups.row_group(group).column(0).statistics  # `ids` is the first column of both views
            if statistics is not None and statistics.has_min_max and statistics.max >= vocab_size:
                raise PacklmError(
                    f"{path}: holds the id {statistics.max}, but the vocabulary has {vocab_size:,}; not a dataset of packlm's"
                )

"""The documents of a split as they were, from the ids and the white space that a dataset holds: to the letter, if it is lossless."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import dataset
from preprocess.encoding import Encoder
from preprocess.texts import Texts

_ROWS = 4096
"""Sentences decoded at a time."""


def blocks(folder: Path, manifest: dataset.Manifest, split: str, encoder: Encoder) -> Iterator[Texts]:
    """The documents of a split, those of one shard at a time."""
    for path in dataset.paths(folder, manifest, "sentences", split):
        names: list[str] = []
        parts: list[list[str]] = []
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=["ids", "document", "position", "lead", "gap"]):
                for row in batch.to_pylist():
                    if row["position"] == 0:
                        names.append(row["document"])
                        parts.append([])
                    parts[-1] += [row["lead"], encoder.decode(row["ids"][:-1]), row["gap"]]
        yield Texts.of((name, "".join(part)) for name, part in zip(names, parts, strict=True))

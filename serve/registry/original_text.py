"""The original documents of a split, from the ids and the whitespace that a dataset holds: exact if its tokenizer is lossless."""

from collections.abc import Iterator
from pathlib import Path

from packlm import dataset
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoder

_ROWS = 4096
"""Sentences decoded at a time."""


def blocks(folder: Path, manifest: dataset.Manifest, split: str, encoder: Encoder) -> Iterator[DocumentBlock]:
    """The documents of a split, those of one shard at a time."""
    for shard in dataset.open_shards(folder, manifest, "sentences", split):
        names: list[str] = []
        parts: list[list[str]] = []
        for batch in shard.iter_batches(_ROWS, columns=["ids", "document", "position", "lead", "gap"]):
            for row in batch.to_pylist():
                if row["position"] == 0:
                    names.append(row["document"])
                    parts.append([])
                parts[-1] += [row["lead"], encoder.decode(row["ids"][:-1]), row["gap"]]
        yield DocumentBlock.of((name, "".join(part)) for name, part in zip(names, parts, strict=True))

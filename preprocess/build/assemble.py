"""Assembles the dataset: sums its shards into splits, and writes the report and the manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from packlm import dataset
from packlm.base import files
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text import tokenizer
from packlm.text.encoder import Encoder

from .. import overlap, report
from .provenance import Provenance
from .shards import MadeShard


def assemble(
    folder: Path, config: Config, provenance: Provenance, shards: Mapping[str, Sequence[MadeShard]], counts: Mapping[str, int]
) -> Manifest:
    """Completes a dataset's folder that has the tokenizer and all shards.

    Args:
        shards: those of each split, in order.
        counts: documents skipped, lines dropped, and so on, by reason.
    """
    encoder = Encoder.load(folder)
    splits = {split: _sum(of_split) for split, of_split in shards.items()}
    counts = dict(counts)
    if overlong := sum(split.overlong for split in splits.values()):
        action = "split" if config.corpus.on_overlong == "split" else "kept"
        counts[f"sentences of more than {config.corpus.max_tokens} tokens {action}"] = overlong
    none = report.Measures.none(encoder.vocab_size)
    measures = {split: sum((report.Measures.load(shard.measures) for shard in of_split), none) for split, of_split in shards.items()}
    dataset.write_sources(folder, provenance.corpus)
    made = [*report.write(folder, measures), overlap.write(folder, splits)]
    others = [folder / dataset.SOURCES, folder / tokenizer.NAME, folder / "tokenizer_config.json", *made]
    manifest = Manifest(
        settings=provenance.settings,
        digests={
            "settings": files.digest(provenance.settings),
            "corpus": dataset.corpus_digest(provenance.corpus),
            "tokenizer": encoder.digest,
            "ids": files.digest([shard.ids_digest for of_split in shards.values() for shard in of_split]),
            "content": dataset.content_digest(splits),
        },
        vocab_size=encoder.vocab_size,
        length=config.dataset.length,
        lossless=encoder.lossless,
        splits=splits,
        counts=dict(sorted(counts.items())),
        files={path.relative_to(folder).as_posix(): files.sha256(path) for path in others},
    )
    dataset.write_manifest(folder, manifest)
    return manifest


def _sum(shards: Sequence[MadeShard]) -> dataset.Split:
    sums = {key: sum(shard.statistics[key] for shard in shards) for key in shards[0].statistics}
    sums["longest_sentence"] = max(shard.statistics["longest_sentence"] for shard in shards)
    listed: dict[str, dict[str, dataset.Shard]] = {view: dict(shard.files[view] for shard in shards) for view in dataset.VIEWS}
    return dataset.Split(**sums, files=listed)

"""Datasets of random ids, written through the dataset contract, for tests that need no text; and a small one as a fixture."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from packlm import dataset
from packlm.base import files

EOS = 0


class RandomData(NamedTuple):
    """A dataset on disk."""

    folder: Path
    manifest: dataset.Manifest


@pytest.fixture(scope="session")
def random_data(tmp_path_factory: pytest.TempPathFactory) -> RandomData:
    """A dataset of 30 random documents in two shards, and 8 for validation."""
    folder = tmp_path_factory.mktemp("random")
    return RandomData(folder, write(folder))


def documents(seed: int, count: int, vocab_size: int = 17, longest: int = 9) -> list[list[np.ndarray]]:
    """Random documents: lists of sentences of ids, each ending in `<eos>` (id 0)."""
    generator = np.random.default_rng(seed)
    return [
        [np.append(generator.integers(1, vocab_size, generator.integers(0, longest)), EOS) for _ in range(generator.integers(1, 5))]
        for _ in range(count)
    ]


def write(folder: Path, seed: int = 1, counts: tuple[int, int] = (30, 8), vocab_size: int = 17, length: int = 6) -> dataset.Manifest:
    """Writes a dataset of random documents: `counts` of training (in two shards) and validation documents."""
    splits = {}
    for name, count, shards in (("train", counts[0], 2), ("validation", counts[1], 1)):
        texts = documents(seed + len(splits), count, vocab_size)
        cut = np.array_split(np.arange(count), shards)
        splits[name] = _split(folder, name, [[texts[index] for index in part] for part in cut], dataset.ColumnTypes(vocab_size, length))
    words = models.WordLevel({"<eos>": EOS, **{f"w{number}": number for number in range(1, vocab_size)}}, unk_token="<eos>")
    files.write_text(folder / "tokenizer.json", Tokenizer(words).to_str())
    files.write_text(folder / "tokenizer_config.json", "{}")
    dataset.write_sources(folder, {})
    others = {file: files.sha256(folder / file) for file in (dataset.SOURCES, "tokenizer.json", "tokenizer_config.json")}
    settings: dict[str, dict[str, str]] = {"corpus": {}}
    digests = {"settings": files.digest(settings), "corpus": dataset.corpus_digest({}), "tokenizer": others["tokenizer.json"]}
    digests["content"] = dataset.content_digest(splits)
    manifest = dataset.Manifest(settings, digests, vocab_size, length, False, splits, {}, others)
    dataset.write_manifest(folder, manifest)
    return manifest


def _split(folder: Path, name: str, shards: list[list[list[np.ndarray]]], like: dataset.ColumnTypes) -> dataset.Split:
    written: dict[str, dict[str, dataset.Shard]] = {view: {} for view in dataset.VIEWS}
    for number, part in enumerate(shards):
        sentences = [sentence for document in part for sentence in document]
        ids, ends = np.concatenate(sentences), np.cumsum([len(sentence) for sentence in sentences])
        opens = np.cumsum([0, *(sum(map(len, document)) for document in part)])[:-1]
        starts = np.arange(0, len(ids), like.length)
        stops = np.minimum(starts + like.length, len(ids))
        ones, blank = np.ones(len(ends), np.int32), [""] * len(ends)
        names = [str(index) for index, document in enumerate(part) for _ in document]
        columns = {"document": names, "position": ones, "words": ones, "bytes": ones, "joined": ones == 0, "lead": blank, "gap": blank}
        tables = {
            "fixed": dataset.fixed_table(ids, opens, starts, stops, EOS, like),
            "sentences": dataset.sentences_table(ids, ends, columns, like),
        }
        for view, table in tables.items():
            file = dataset.shard_name(view, name, number, len(shards))
            with dataset.ShardWriter(folder / file, view, like) as writer:
                writer.write(table)
            written[view][file] = dataset.Shard(writer.rows, len(ids), files.sha256(writer.path))
    flat = [document for part in shards for document in part]
    tokens = sum(len(sentence) for document in flat for sentence in document)
    longest = max(len(sentence) for document in flat for sentence in document)
    return dataset.Split(len(flat), sum(map(len, flat)), tokens, tokens, tokens, 0, 0, longest, written)

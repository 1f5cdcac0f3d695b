"""A small corpus, a way to build a dataset of it, and ways to look at what came out."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packlm import config, dataset
from packlm.dataset import Manifest
from preprocess.build.stage import build

TEXTS = {
    "a.txt": ".START \n\nThe cat sat. It slept!\n\nThen  it left.\n",
    "b.txt": "One sentence only",
    "sub/c.txt": "Der Bär isst.\tÜber Nacht 😀 kam er.  \n\n  Ja.  ",
    "sub/d.txt": "The cat sat. The cat sat. A dog saw the cat, and the cat saw it; nothing else was seen by anybody that day.\n",
    "e.txt": "\n\n <eos> and <unk> are spelled here. So they are.\n",
    "blank.txt": " \n\t\n",
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of articles, one of them blank, one hidden."""
    root = tmp_path / "articles"
    for name, text in {**TEXTS, ".hidden.txt": "never"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture
def settings(tmp_path: Path, corpus: Path) -> Callable[..., config.Config]:
    """Makes a configuration: that of the small corpus, with `section__key=value` changed."""

    def make(**changes: Any) -> config.Config:
        values: dict[str, dict[str, Any]] = {
            "run": {"name": "small", "dir": tmp_path / "run"},
            "corpus": {"train": str(corpus)},
            "tokenizer": {"kind": "bpe", "vocab_size": 280},
            "dataset": {"dir": tmp_path / "data" / "small", "length": 7, "shards": 3, "workers": 1},
            "tracking": {"uri": ""},
        }
        for key, value in changes.items():
            section, name = key.split("__")
            values[section][name] = value
        return config.resolve(values)

    return make


@pytest.fixture
def made(settings: Callable[..., config.Config]) -> Callable[..., tuple[Path, Manifest]]:
    """Builds the dataset of `settings(...)`, in the place of any other; returns its folder and manifest."""

    def make(**changes: Any) -> tuple[Path, Manifest]:
        chosen = settings(**changes)
        return chosen.dataset.dir, build(chosen, rebuild=True).manifest

    return make


def rows(folder: Path, manifest: Manifest, view: dataset.View, split: str) -> list[list[dict[str, Any]]]:
    """The rows of each shard."""
    return [pq.read_table(path).to_pylist() for path in dataset.shard_digests(folder, manifest, view, split)]


def schema(folder: Path, manifest: Manifest, view: dataset.View, split: str) -> pa.Schema:
    return pq.read_schema(next(iter(dataset.shard_digests(folder, manifest, view, split))))


def tree(folder: Path) -> dict[str, str]:
    """Path -> digest of every file below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

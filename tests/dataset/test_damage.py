"""A file of a dataset is read only if it is the one that the manifest describes, and the cache only as it was when it was made."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from packlm import dataset
from packlm.base import verified_files
from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences, Stream
from packlm.text.encoder import Encoder
from tests.random_dataset import write


def flip(path: Path, seed: int = 0) -> None:
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
    path.write_bytes(data)


def flip_keeping_times(path: Path) -> None:
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def exchange(path: Path) -> None:
    other = next(sibling for sibling in sorted(path.parent.glob(f"*{path.suffix}")) if sibling != path)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "flipped, with its times": flip_keeping_times,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "extended": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": lambda path: path.unlink(),
    "exchanged": exchange,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", seed=int.from_bytes(os.urandom(4)))  # of its own content, so of its own cache
    return tmp_path / "data"


def opened(folder: Path, manifest: dataset.Manifest) -> list[list[int]]:
    """All targets of both views of both splits."""
    ids = []
    for split in manifest.splits:
        sentences, stream = Sentences.open(folder, manifest, split), Stream.open(folder, manifest, split)
        ids += [sentences.read(np.arange(len(sentences)))[1].tolist(), stream.read(0, len(stream))[1].tolist()]
    return ids


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("cached", [False, True], ids=["first opening", "later opening"])
def test_a_shard_that_is_not_the_one_of_the_manifest_is_named_before_it_is_used(folder, damage, cached):
    manifest = dataset.read_manifest(folder)
    if cached:
        opened(folder, manifest)
    path = folder / "fixed" / "train-00000-of-00002.parquet"
    damage(path)
    with pytest.raises(PacklmError, match=rf"train-0000.-of-00002\.parquet: .*verify {folder} --repair") as error:
        opened(folder, manifest)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_again(folder, damage, caplog):
    manifest = dataset.read_manifest(folder)
    expected = opened(folder, manifest)
    cache = Path(os.environ["HF_DATASETS_CACHE"]) / "packlm" / manifest.digests["content"][:32]
    arrow_files = sorted(cache.rglob("*.arrow"))
    assert len(arrow_files) == 4
    if damage is exchange:
        shutil.copy(arrow_files[0], arrow_files[0].with_name("other.arrow"))
    (damage if damage is not exchange else flip)(arrow_files[0])
    assert opened(folder, manifest) == expected
    assert "the shards are converted again" in caplog.text
    caplog.clear()
    assert opened(folder, manifest) == expected and not caplog.text
    for record in cache.rglob("packlm.json"):
        record.write_text("{}")
    assert opened(folder, manifest) == expected and "it has no digest" in caplog.text


def test_a_file_is_hashed_once_and_again_when_it_has_changed(folder, monkeypatch):
    manifest, hashed = dataset.read_manifest(folder), []
    original = verified_files.open_checked
    monkeypatch.setattr(verified_files, "open_checked", lambda path, sha256: hashed.append(path) or original(path, sha256))
    opened(folder, manifest)
    first = len(hashed)
    assert first > 4
    opened(folder, manifest)
    assert len(hashed) == first
    shard = folder / "sentences" / "validation-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes())
    opened(folder, manifest)
    assert hashed[first] == shard


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_other_files_are_held_against_the_manifest_too(folder, damage):
    manifest = dataset.read_manifest(folder)
    (folder / "other.json").write_text("{}")
    damage(folder / "tokenizer.json")
    with pytest.raises(PacklmError, match=r"tokenizer\.json: "):
        dataset.read_files(folder, manifest, ["tokenizer.json"])
    with pytest.raises(PacklmError, match=r"tokenizer\.json: "):
        Encoder.load(folder, manifest.digests["tokenizer"])
    shutil.copy(folder / "sources.parquet", folder / "other.parquet")
    with open(folder / "other.parquet", "ab") as stream:
        stream.write(b"\0")
    damage(folder / "sources.parquet")
    with pytest.raises(PacklmError, match=r"sources\.parquet: "):
        dataset.read_sources(folder, manifest)
    damage(folder / "sentences" / "train-00001-of-00002.parquet")
    with pytest.raises(PacklmError, match=r"train-0000.-of-00002\.parquet: "):
        list(dataset.open_shards(folder, manifest, "sentences", "train"))


def test_a_dataset_that_was_rebuilt_is_said_to_be(folder, tmp_path):
    manifest = dataset.read_manifest(folder)
    shutil.rmtree(folder)
    write(folder, seed=2, vocab_size=19)
    for read in (
        lambda: opened(folder, manifest),
        lambda: dataset.read_files(folder, manifest, ["tokenizer.json"]),
        lambda: dataset.document_names(folder, manifest, "validation", np.array([0])),
    ):
        with pytest.raises(PacklmError, match=f"{folder} was built anew since this began to read it; run the same command again"):
            read()

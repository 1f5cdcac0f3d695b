"""Copies of datasets and models from other storage: a server that speaks S3, and fsspec's own in memory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.dataset import Manifest
from packlm.fetch import fetch
from tests.small_corpus import tree

Data = tuple[Path, Manifest]


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def put(system: Any, folder: Path, root: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())


def test_from_s3(random_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    try:
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        put(system, random_data[0], "bucket/data/random")
        system.pipe_file("bucket/data/random/.hidden", b"never")
        copy = fetch("s3://bucket/data/random", tmp_path)
        assert copy.name == "random"
        assert tree(copy) == tree(random_data[0])
        assert dataset.damaged(copy, dataset.read_manifest(copy)) == {}
        monkeypatch.setattr(type(system), "find", lambda *arguments: pytest.fail("copied again"))
        assert fetch("s3://bucket/data/random/", tmp_path) == copy
        with pytest.raises(RequestError, match="neither a dataset nor a model"):
            fetch("s3://bucket/data", tmp_path)
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        server.stop()


def test_a_model(memory: Any, made: Callable[[str], Any], tmp_path: Path) -> None:
    model = made("word").run.dir / "model"
    put(memory, model, "/models/tiny")
    assert tree(fetch("memory://models/tiny", tmp_path)) == tree(model)


def test_an_interrupted_copy_goes_on(memory: Any, random_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, random_data[0], "/random")
    copied, get_file = [], type(memory).get_file

    def get_some(self: Any, source: str, target: str, **options: Any) -> None:
        if len(copied) == 4:
            Path(target).write_bytes(b"half of")
            raise KeyboardInterrupt
        copied.append(source)
        get_file(self, source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", get_some)
        with pytest.raises(KeyboardInterrupt):
            fetch("memory://random", tmp_path)
    again: list[str] = []
    monkeypatch.setattr(type(memory), "get_file", lambda self, source, target: (again.append(source), get_file(self, source, target)))
    assert tree(fetch("memory://random", tmp_path)) == tree(random_data[0])
    assert len(copied) == 4 and not {*copied} & {*again}


def test_what_is_damaged_is_copied_anew(memory: Any, random_data: Data, tmp_path: Path) -> None:
    put(memory, random_data[0], "/random")
    (name, whole) = next((name, data.getvalue()) for name, data in memory.store.items() if "fixed/train-00001" in name)
    memory.pipe_file(name, whole[:-1])
    with pytest.raises(PacklmError, match=r"fixed/train-00001.*expected sha256.*\n.*fetch it again"):
        fetch("memory://random", tmp_path)
    assert [path for path in tmp_path.rglob("manifest.json") if "/." not in str(path)] == []
    memory.pipe_file(name, whole)
    assert tree(fetch("memory://random", tmp_path)) == tree(random_data[0])


def test_another_version_is_another_copy(memory: Any, random_data: Data, tmp_path: Path) -> None:
    put(memory, random_data[0], "/random")
    first = fetch("memory://random", tmp_path)
    memory.pipe_file("/random/manifest.json", json.dumps(files.read_json(random_data[0] / "manifest.json")).encode())
    second = fetch("memory://random", tmp_path)
    assert first != second and first.exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nothing/here", "neither a dataset nor a model folder"),
        ("s4://bucket/name", r"s4.*an address begins as s3:// does"),
        ("nowhere", "neither a dataset nor a model folder"),
    ],
)
def test_refusals(memory: Any, tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fetch(address, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_fails(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, path: str) -> bytes:
        raise PermissionError("Access denied\nfor https://me:secretsecret@host/x")

    monkeypatch.setattr(type(memory), "cat_file", fail)
    with pytest.raises(PacklmError, match="cannot be read: Access denied") as caught:
        fetch("memory://random", tmp_path)
    assert "\n" not in str(caught.value) and "secretsecret" not in str(caught.value)

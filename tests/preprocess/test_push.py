"""Pushing a dataset: to a small hub of our own on 127.0.0.1, through the real library."""

import hashlib
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError
from preprocess.push import push
from tests import random_dataset
from tests.fake_hub import TOKEN, Hub
from tests.small_corpus import tree

# The library sends a file in a way that its own HTTP client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    random_dataset.write(folder)
    (folder / "report").mkdir()
    (folder / "report" / "lengths.png").write_bytes(b"a figure")
    for name in (".hidden", "fixed/.lengths.tmp", ".cache/deep/inside"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"never")
    return folder


def visible(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(folder).items() if not any(part.startswith(".") for part in name.split("/"))}


@pytest.mark.parametrize("pipelined", [False, True])
def test_what_arrives_is_what_was_there(
    hub: Hub, made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pipelined: bool
) -> None:
    from datasets import load_dataset
    from huggingface_hub import constants

    if pipelined:  # what the library does by default; no file is large, as those would go to the servers that are not faked
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        hub.large = "none of them"
    assert push(made, "me/tiny", private=False) == f"{hub.address}/datasets/me/tiny"
    arrived = tmp_path / "arrived"
    for name, data in hub.repositories["me/tiny"].items():
        (arrived / name).parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).write_bytes(data)
    assert visible(arrived) == visible(made) | {"LICENSE": hashlib.sha256(b"theirs").hexdigest()}
    assert not [name for name in hub.repositories["me/tiny"] if "/." in f"/{name}" and name != ".gitattributes"]
    manifest = dataset.read_manifest(arrived)
    assert dataset.damaged(arrived, manifest) == {}
    (header,) = hub.commits
    assert manifest.digests["content"] in header["summary"]
    for view in dataset.VIEWS:
        opened = load_dataset(str(arrived), view, split="validation", cache_dir=str(tmp_path / "cache"))
        assert opened["ids"] == pq.read_table(list(dataset.shard_digests(made, manifest, view, "validation")))["ids"].to_pylist()
    assert hub.private["me/tiny"] is False
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_second_push_leaves_nothing_of_the_first_but_what_is_not_ours(hub: Hub, made: Path) -> None:
    push(made, "me/tiny", private=True)
    assert hub.private["me/tiny"] is True
    old = {"fixed/train-00000-of-00009.parquet", "sentences/test-00000-of-00001.parquet", "report/old.png"}
    hub.repositories["me/tiny"] |= dict.fromkeys(old, b"of an older dataset")
    random_dataset.write(made, seed=9)
    push(made, "me/tiny", private=True)
    found = {name: hashlib.sha256(data).hexdigest() for name, data in hub.repositories["me/tiny"].items()}
    kept = {name: hashlib.sha256(data).hexdigest() for name, data in ((".gitattributes", b""), ("LICENSE", b"theirs"))}
    assert found == visible(made) | kept


def test_a_damaged_dataset_is_not_sent(hub: Hub, made: Path) -> None:
    path = made / "fixed" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PacklmError, match=r"train-00001-of-00002\.parquet: expected sha256 .*\n.*nothing was sent"):
        push(made, "me/tiny", private=False)
    assert hub.repositories == {}


def test_private_is_not_sent_to_a_public_repository(hub: Hub, made: Path) -> None:
    push(made, "me/tiny", private=False)
    with pytest.raises(RequestError, match="public"):
        push(made, "me/tiny", private=True)
    assert len(hub.commits) == 1


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "me/ti ny", "me/tiny.git", "me/-tiny", "me/", "/tiny"])
def test_names_that_the_hub_does_not_have(hub: Hub, made: Path, name: str) -> None:
    with pytest.raises(RequestError, match=re.escape(repr(name))) as caught:
        push(made, name, private=False)
    assert "\n" not in str(caught.value) and hub.repositories == {}


def test_without_login(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RequestError, match=r"not logged in.*hf auth login"):
        push(made, "me/tiny", private=False)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(RequestError, match="does not accept this login") as caught:
        push(made, "me/tiny", private=False)
    assert "hf_another" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "status", "kind", "says"),
    [
        ("/repos/create", 403, RequestError, "may not write"),
        ("/repos/create", 400, RequestError, "refused"),
        ("/repos/create", 500, PacklmError, "failed"),
        ("/preupload/", 403, RequestError, "may not write"),
        ("/commit/", 400, RequestError, "refused"),
    ],
)
def test_refusals_are_one_line(hub: Hub, made: Path, part: str, status: int, kind: type[PacklmError], says: str) -> None:
    hub.fails[part] = status
    with pytest.raises(PacklmError, match=says) as caught:
        push(made, "me/tiny", private=False)
    message = str(caught.value)
    assert "no, Bearer ***" in message  # what the hub itself said, and it said too much
    assert type(caught.value) is kind and message.startswith("me/tiny: ") and "\n" not in message and TOKEN not in message


def test_no_network(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PacklmError, match="cannot be reached") as caught:
        push(made, "me/tiny", private=False)
    assert type(caught.value) is PacklmError and "\n" not in str(caught.value)

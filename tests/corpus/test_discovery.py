"""Which sources a location has, their names and order, and copies of standard input and hub datasets."""

import io
import json
import os
import pickle
import socket
import sys

import pytest

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus import discovery, formats, remote
from packlm.corpus.formats import builtin
from packlm.corpus.sources import Source

NAMES = ["a.txt", "b.txt", "sub/c.txt", "sub/d.txt"]


@pytest.fixture
def articles(tmp_path):
    root = tmp_path / "articles"
    for name in [*NAMES, ".hidden.txt", "sub/.git/x"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def find(*locations, downloads=None, split="train", **rules):
    return discovery.find([str(location) for location in locations], Corpus(**rules), split, downloads)


def names(*locations, **rules):
    return [source.name for source in find(*locations, **rules)]


def test_names_and_order(articles, monkeypatch):
    expected = [f"articles/{name}" for name in NAMES]
    assert names(articles) == names(f"{articles}/") == names(articles / "**") == names(articles / "*") == expected
    assert names(articles / "sub" / "c.txt", articles / "b.txt") == ["c.txt", "b.txt"]
    assert names(articles / ".hidden.txt") == [".hidden.txt"]
    monkeypatch.setattr(discovery.os, "listdir", lambda folder, real=os.listdir: sorted(real(folder), reverse=True))
    assert names(articles) == expected
    monkeypatch.chdir(articles)
    assert names(".")[0] == "a.txt"  # the name of the folder one happens to be in is no part of it


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty", "*.txt"):
        with pytest.raises(RequestError, match=place.replace("*", r"\*")):
            names(tmp_path / place)


def test_what_is_not_a_regular_file_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RequestError, match="pipe: not a regular file"):
            names(place)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(RequestError, match="s: not a regular file"):
            names(tmp_path)


def test_links_in_loops_and_to_nowhere(articles):
    (articles / "sub" / "up").symlink_to(articles)
    with pytest.raises(RequestError, match=r"sub/up.*leads back"):
        names(articles)
    (articles / "sub" / "up").unlink()
    (articles / "sub" / "me").symlink_to("me")
    with pytest.raises(RequestError, match="sub/me: cannot be read"):
        names(articles)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(articles):
    (articles / "a.txt").chmod(0)
    with pytest.raises(PacklmError, match=r"a\.txt: cannot be read"):
        [formats.scan(source, Corpus()) for source in find(articles)]


def test_a_file_that_may_not_be_opened_is_named(articles, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(PacklmError, match=r"a\.txt: cannot be read: Permission denied"):
        formats.scan(Source("a.txt", articles / "a.txt"), Corpus())


def test_repeats_are_refused(articles, tmp_path):
    def check(**locations):
        discovery.check_unique({split: find(*listed) for split, listed in locations.items()}, Corpus())

    check(train=[articles / "sub"], test=[articles / "a.txt"])
    with pytest.raises(RequestError, match=r"a\.txt: given twice, in corpus.train .* and in corpus.test"):
        check(train=[articles], test=[articles / "a.txt"])
    (tmp_path / "other").symlink_to(articles)
    with pytest.raises(RequestError, match="given twice"):
        check(train=[articles], test=[tmp_path / "other"])
    (tmp_path / "a.txt").write_text("another")
    with pytest.raises(RequestError, match=r"two documents would be called 'a\.txt'"):
        check(train=[articles / "a.txt"], test=[tmp_path / "a.txt"])


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [
        ("x", "text", None),
        ("x.txt.gz", "text", "gz"),
        ("x.JSONL.zst", "jsonl", "zst"),
        ("x.csv", "csv", None),
        ("x.tsv.GZ", "csv", "gz"),
        ("x.parquet", "parquet", None),
        ("x.jsonl.bak", "text", None),
        ("gz", "text", None),
    ],
)
def test_formats_go_by_suffixes(tmp_path, name, format, compression):
    (tmp_path / name).write_text("")
    (source,) = find(tmp_path / name)
    assert (source.format, source.compression) == (format, compression)
    (forced,) = find(tmp_path / name, format="jsonl")
    assert (forced.format, forced.compression) == ("jsonl", compression)


def test_parquet_in_gzip_is_refused(tmp_path):
    (tmp_path / "x.parquet.gz").write_text("")
    with pytest.raises(RequestError, match=r"x\.parquet\.gz: .*decompress it"):
        find(tmp_path)


def test_builtin(monkeypatch):
    monkeypatch.setattr(builtin, "cached_documents", lambda: [("topics/a", "A b.")])
    found = find("python", format="builtin", encoding="utf-16")
    assert found[0].encoding == "utf-8" and found[0].data and pickle.loads(pickle.dumps(found[0])) == found[0]
    with pytest.raises(RequestError, match="one corpus"):
        find("perl", format="builtin")


def test_standard_input(tmp_path, monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(b"a\r\n\xff")
    (source,) = find("-", downloads=tmp_path, encoding="Latin-1", format="jsonl")
    assert (source.name, source.format, source.encoding) == ("stdin", "jsonl", "iso8859-1")
    assert source.path.read_bytes() == b"a\r\n\xff"
    with pytest.raises(RequestError, match="more than once"):
        find("-", "-", downloads=tmp_path)
    with pytest.raises(RequestError, match="more than once"):
        find("-", downloads=tmp_path, train="-", test="-")
    give(b"")
    found = {split: find("-", downloads=tmp_path, split=split) for split in ("train", "test")}
    with pytest.raises(RequestError, match="standard input: given twice"):
        discovery.check_unique(found, Corpus())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset as a folder: 3 documents to train on, 1 to test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "deep" / "mine"
    folder.mkdir(parents=True)
    rows = [{"text": "One.", "body": "1"}, {"text": "Zwölf\n😀", "body": "2"}, {"text": "", "body": "3"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text(json.dumps(rows[1]) + "\n")
    return folder


def read(source):
    return [json.loads(line) for line in source.path.read_text().splitlines()]


def test_a_hub_dataset(hub, tmp_path, monkeypatch):
    downloads = tmp_path / "downloads"
    (train,) = find(f"hub:{hub}", downloads=downloads, encoding="utf-16")
    (body,) = find(f"hub:{hub}", downloads=downloads, text_field="body")
    (test,) = find(f"hub:{hub}", downloads=downloads, split="test")
    assert (train.name, train.format, train.encoding, test.name) == ("mine:train", "jsonl", "utf-8", "mine:test")
    (folder := hub.parent / "nested").mkdir()
    (folder / "train.jsonl").write_text('{"data": {"text": "In it."}}\n')
    (nested,) = find(f"hub:{folder}", downloads=downloads, text_field="data.text")
    assert read(nested) == [{"data.text": "In it."}]
    assert read(train) == [{"text": "One."}, {"text": "Zwölf\n😀"}, {"text": ""}]
    assert read(body) == [{"body": "1"}, {"body": "2"}, {"body": "3"}]
    assert read(test) == [{"text": "Zwölf\n😀"}]
    (named,) = find(f"hub:{hub}:default:test", downloads=downloads)
    assert named.name == "mine:default:test" and named.path.read_bytes() == test.path.read_bytes()
    monkeypatch.setattr(remote, "_rows", None)  # a copy is not downloaded again
    assert find(f"hub:{hub}", downloads=downloads, encoding="utf-16") == [train]
    with pytest.raises(RequestError, match="given twice"):
        discovery.check_unique({"train": [train], "test": [*find(f"hub:{hub}", downloads=downloads)]}, Corpus())


def test_hub_datasets_that_cannot_be_loaded(hub, tmp_path, monkeypatch):
    downloads = tmp_path / "downloads"
    with pytest.raises(RequestError, match=r"hub:.*mine: no column 'txt'; there are 'text', 'body'"):
        find(f"hub:{hub}", downloads=downloads, text_field="txt")
    with pytest.raises(RequestError, match=r"hub:.*: cannot be loaded: .*validation") as caught:
        find(f"hub:{hub}", downloads=downloads, split="validation")
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="cannot be loaded"):
        find(f"hub:{tmp_path / 'none'}", downloads=downloads)
    with pytest.raises(RequestError, match="written hub:NAME"):
        find("hub:a:b:c:d", downloads=downloads)
    assert not list(downloads.glob("*"))

    def broken(*_):
        yield {"text": "a"}
        raise ConnectionError("reset\nby peer")

    monkeypatch.setattr(remote, "_rows", broken)
    with pytest.raises(PacklmError, match=r"interrupted after 1 documents: ConnectionError: reset by peer"):
        find("hub:x", downloads=downloads)
    assert not list(downloads.glob("*"))


def test_hub_values_that_are_no_strings_reach_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_rows", lambda *_: iter([{"text": None}, {"text": b"x"}, {"text": "\ud800"}, {}]))
    (source,) = find("hub:org/x", downloads=tmp_path)
    assert source.path.read_bytes().splitlines() == [b'{"text": null}', b'{"text": {"type": "bytes"}}', b'{"text": "\\ud800"}', b"{}"]
    assert source.name == "org/x:train" and source.where == "hub:org/x"


def test_a_file_that_has_become_a_fifo_does_not_block(articles):
    (source,) = find(articles / "a.txt")
    (articles / "a.txt").unlink()
    os.mkfifo(articles / "a.txt")
    with pytest.raises(PacklmError, match=r"a\.txt: a FIFO, not a regular file"):
        source.open()


def test_a_long_name_of_the_hub_is_no_path(tmp_path):
    assert remote.parse_hub("hub:" + "x" * 5_000, "train").name == "x" * 5_000 + ":train"

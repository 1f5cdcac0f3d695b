"""Which files there are, their names and order, what comes from elsewhere, and the parts that files are cut into."""

import hashlib
import io
import json
import os
import pickle
import re
import socket
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus import remote, sources
from packlm.corpus.sources import Source

NAMES = ["a.txt", "b.txt", "sub/c.txt", "sub/d.txt"]


@pytest.fixture
def articles(tmp_path):
    root = tmp_path / "articles"
    for name in [*NAMES, ".hidden.txt", "sub/.git/x"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def find(*places, spool=None, split="train", **rules):
    return sources.find([str(place) for place in places], Corpus(**rules), split, spool)


def names(*places, **rules):
    return [source.name for source in find(*places, **rules)]


def test_names_and_order(articles, monkeypatch):
    expected = [f"articles/{name}" for name in NAMES]
    assert names(articles) == names(f"{articles}/") == names(articles / "**") == names(articles / "*") == expected
    assert names(articles / "sub" / "c.txt", articles / "b.txt") == ["c.txt", "b.txt"]
    assert names(articles / ".hidden.txt") == [".hidden.txt"]
    monkeypatch.setattr(sources.corpus_paths.os, "listdir", lambda folder, real=os.listdir: sorted(real(folder), reverse=True))
    assert names(articles) == expected
    monkeypatch.chdir(articles)
    assert names(".")[0] == "a.txt"  # the name of the folder one happens to be in is no part of it


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty", "*.txt"):
        with pytest.raises(RequestError, match=place.replace("*", r"\*")):
            names(tmp_path / place)


def test_what_is_no_file_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RequestError, match="pipe: not a regular file"):
            names(place)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(RequestError, match="s: not a regular file"):
            names(tmp_path)


def test_links_in_circles_and_to_nowhere(articles):
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
        [list(sources.survey(source, Corpus())) for source in find(articles)]


def test_a_file_that_may_not_be_opened_is_named(articles, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PacklmError, match=r"a\.txt: cannot be read: Permission denied"):
        list(sources.survey(Source("a.txt", articles / "a.txt"), Corpus()))


def test_repeats_are_refused(articles, tmp_path):
    def refuse(**places):
        sources.refuse_repeats({split: find(*given) for split, given in places.items()})

    refuse(train=[articles / "sub"], test=[articles / "a.txt"])
    with pytest.raises(RequestError, match=r"a\.txt: given twice, in corpus.train .* and in corpus.test"):
        refuse(train=[articles], test=[articles / "a.txt"])
    (tmp_path / "other").symlink_to(articles)
    with pytest.raises(RequestError, match="given twice"):
        refuse(train=[articles], test=[tmp_path / "other"])
    (tmp_path / "a.txt").write_text("another")
    with pytest.raises(RequestError, match=r"two documents would be called 'a\.txt'"):
        refuse(train=[articles / "a.txt"], test=[tmp_path / "a.txt"])


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
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
def test_kinds_go_by_names(tmp_path, name, kind, compression):
    (tmp_path / name).write_text("")
    (source,) = find(tmp_path / name)
    assert (source.kind, source.compression) == (kind, compression)
    assert source.delimiter == ("\t" if "tsv" in name else ",")
    (forced,) = find(tmp_path / name, format="jsonl")
    assert (forced.kind, forced.compression) == ("jsonl", compression)


def test_parquet_in_gzip_is_refused(tmp_path):
    (tmp_path / "x.parquet.gz").write_text("")
    with pytest.raises(RequestError, match=r"x\.parquet\.gz: .*unpack it"):
        find(tmp_path)


def test_builtin(monkeypatch):
    monkeypatch.setattr(sources.builtin, "documents", lambda: [("topics/a", "A b.")])
    found = find("python", format="builtin", encoding="utf-16")
    assert found[0].encoding == "utf-8" and found[0].data and pickle.loads(pickle.dumps(found[0])) == found[0]
    with pytest.raises(RequestError, match="one corpus"):
        find("perl", format="builtin")


def test_standard_input(tmp_path, monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(b"a\r\n\xff")
    (source,) = find("-", spool=tmp_path, encoding="Latin-1", format="jsonl")
    assert (source.name, source.kind, source.encoding) == ("stdin", "jsonl", "iso8859-1")
    assert source.path.read_bytes() == b"a\r\n\xff"
    with pytest.raises(RequestError, match="more than once"):
        find("-", "-", spool=tmp_path)
    with pytest.raises(RequestError, match="more than once"):
        find("-", spool=tmp_path, train="-", test="-")
    give(b"")
    found = {split: find("-", spool=tmp_path, split=split) for split in ("train", "test")}
    with pytest.raises(RequestError, match="standard input: given twice"):
        sources.refuse_repeats(found)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set as a folder: 3 documents to train on, 1 to test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "deep" / "mine"
    folder.mkdir(parents=True)
    rows = [{"text": "One.", "body": "1"}, {"text": "Zwölf\n😀", "body": "2"}, {"text": "", "body": "3"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text(json.dumps(rows[1]) + "\n")
    return folder


def read(source):
    return [json.loads(line) for line in source.path.read_text().splitlines()]


def test_a_hub_data_set(hub, tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    (train,), (body,) = find(f"hub:{hub}", spool=spool, encoding="utf-16"), find(f"hub:{hub}", spool=spool, text_field="body")
    (test,) = find(f"hub:{hub}", spool=spool, split="test")
    assert (train.name, train.kind, train.encoding, test.name) == ("mine:train", "jsonl", "utf-8", "mine:test")
    assert read(train) == [{"text": "One."}, {"text": "Zwölf\n😀"}, {"text": ""}]
    assert read(body) == [{"body": "1"}, {"body": "2"}, {"body": "3"}]
    assert read(test) == [{"text": "Zwölf\n😀"}]
    (named,) = find(f"hub:{hub}:default:test", spool=spool)
    assert named.name == "mine:default:test" and named.path.read_bytes() == test.path.read_bytes()
    monkeypatch.setattr(remote, "_rows", None)  # what was spooled is not asked for again
    assert find(f"hub:{hub}", spool=spool, encoding="utf-16") == [train]
    with pytest.raises(RequestError, match="given twice"):
        sources.refuse_repeats({"train": [train], "test": [*find(f"hub:{hub}", spool=spool)]})


def test_what_is_wrong_with_a_hub_data_set(hub, tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    with pytest.raises(RequestError, match=r"hub:.*mine: no column 'txt'; there are 'text', 'body'"):
        find(f"hub:{hub}", spool=spool, text_field="txt")
    with pytest.raises(RequestError, match=r"hub:.*: cannot be had: .*validation") as caught:
        find(f"hub:{hub}", spool=spool, split="validation")
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="cannot be had"):
        find(f"hub:{tmp_path / 'none'}", spool=spool)
    with pytest.raises(RequestError, match="written hub:NAME"):
        find("hub:a:b:c:d", spool=spool)
    assert not list(spool.glob("*"))

    def broken(*_):
        yield {"text": "a"}
        raise ConnectionError("reset\nby peer")

    monkeypatch.setattr(remote, "_rows", broken)
    with pytest.raises(PacklmError, match=r"broke off after 1 documents: ConnectionError: reset by peer"):
        find("hub:x", spool=spool)
    assert not list(spool.glob("*"))


def test_values_of_the_hub_that_are_no_strings_reach_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_rows", lambda *_: iter([{"text": None}, {"text": b"x"}, {"text": "\ud800"}, {}]))
    (source,) = find("hub:org/x", spool=tmp_path)
    assert source.path.read_bytes().splitlines() == [b'{"text": null}', b'{"text": {"type": "bytes"}}', b'{"text": "\\ud800"}', b"{}"]
    assert source.name == "org/x:train" and source.where == "hub:org/x"


def parts(data, part_bytes, name="x", **rules):
    """The parts of a source of these bytes."""
    source = Source(name, data=data, kind="jsonl" if name.endswith("jsonl") else "text", encoding=rules.pop("codec", "utf-8"))
    *found, sha256 = sources.survey(source, Corpus(**rules), part_bytes)
    assert sha256 == hashlib.sha256(data).hexdigest()
    return found


LINES = st.lists(st.sampled_from([b"a", b"", b" ", b"=", b"= x", b"bcd", b"\xff", b"\r"])).map(b"\n".join)


@given(data=LINES, part_bytes=st.integers(1, 12), by=st.sampled_from(["line", "paragraph", "pattern"]))
def test_parts_begin_at_the_first_document_at_or_after_each_multiple(data, part_bytes, by):
    found = parts(data, part_bytes, document=by, document_pattern="=.*" if by == "pattern" else "")
    starts = [0, *(place.end() for place in re.finditer(rb"\n", data) if place.end() < len(data))]
    lines = [data[start:].split(b"\n")[0] for start in starts]
    if by == "paragraph":
        starts = [start for number, start in enumerate(starts) if number and not lines[number - 1].strip()]
    elif by == "pattern":
        starts = [start for start, line in zip(starts, lines, strict=True) if line.strip().startswith(b"=")]
    expected = [0]
    for target in range(part_bytes, len(data), part_bytes):
        start = next((start for start in starts if start >= target), None)
        if start is not None and start not in expected:
            expected.append(start)
    assert [part.start for part in found] == expected
    assert [part.stop for part in found] == [*expected[1:], len(data)]
    assert [part.number for part in found] == [data[:start].count(b"\n") + 1 for start in expected]
    assert all(part.size == part.stop - part.start for part in found)


def test_what_is_cut_and_what_is_not(monkeypatch):
    monkeypatch.setattr(sources, "_BLOCK", 3)
    data = b'{"text": "a"}\n' * 10
    assert len(parts(data, 1, "x.jsonl")) == 10 and len(parts(data, 14, "x.jsonl")) == 10
    assert len(parts(data, 20, "x.jsonl")) == 7
    assert len(parts(data, 1, document="file")) == 1
    assert len(parts(data, 1, document="line", codec="cp1252")) == 10
    assert len(parts(data, 1, document="line", codec="utf-16")) == 1
    assert len(parts(b"", 1, document="line")) == 1
    compressed = Source("x.gz", data=data, compression="gz")
    assert len(list(sources.survey(compressed, Corpus(document="line"), 1))) == 2
    long = b" " * 9000 + b"a\n" + b"b\n\nc"
    assert [part.start for part in parts(long, 9002, document="paragraph")] == [0, 9005]


def test_parquet_is_cut_at_row_groups(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": range(10), "text": ["abc"] * 10}), path, row_group_size=3)
    source = Source("x.parquet", path, kind="parquet")
    *found, sha256 = sources.survey(source, Corpus(), 1)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(part.start, part.stop, part.number) for part in found] == [(0, 1, 1), (1, 2, 4), (2, 3, 7), (3, 4, 10)]
    assert list(sources.survey(source, Corpus(), 1 << 30)) == [sources.whole(source, Corpus()), sha256]
    *two, _ = sources.survey(source, Corpus(), found[0].size + 1)
    assert [(part.start, part.stop) for part in two] == [(0, 2), (2, 4)]
    with pytest.raises(PacklmError, match=r"x\.parquet: no column 'body'; there are 'n', 'text'"):
        list(sources.survey(source, Corpus(text_field="body")))
    with pytest.raises(PacklmError, match=r"x\.parquet: column 'n' holds int64, not strings"):
        list(sources.survey(source, Corpus(text_field="n")))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PacklmError, match=r"x\.parquet: damaged"):
        list(sources.survey(source, Corpus()))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert len(list(sources.survey(source, Corpus()))) == 2

"""Which documents there are, their names and order, and what becomes of bad text."""

import os
import socket
from collections import Counter

import pytest

from pipeline.config import Corpus
from pipeline.errors import PacklmError, RequestError
from preprocess import documents


def names(*places, **rules):
    return [source.name for source in documents.find([str(place) for place in places], Corpus(**rules))]


def texts(path, spelled_eos=False, **rules):
    """({name: text}, counts that are not zero) of a file or folder."""
    counts = Counter()
    return dict(documents.texts([str(path)], Corpus(**rules), spelled_eos, counts)), dict(+counts)


def test_names_and_order(corpus, monkeypatch):
    expected = ["articles/a.txt", "articles/b.txt", "articles/blank.txt", "articles/e.txt", "articles/sub/c.txt", "articles/sub/d.txt"]
    assert names(corpus) == names(f"{corpus}/") == names(corpus / "**") == names(corpus / "*") == expected
    assert names(corpus / "sub" / "c.txt", corpus / "b.txt") == ["c.txt", "b.txt"]
    monkeypatch.setattr(documents.os, "listdir", lambda folder, real=os.listdir: sorted(real(folder), reverse=True))
    assert names(corpus) == expected
    monkeypatch.chdir(corpus)
    assert names(".")[0] == "a.txt"  # the name of the folder one happens to be in is no part of it


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty", "*.txt"):
        with pytest.raises(RequestError, match=place.replace("*", r"\*")):
            names(tmp_path / place)


def test_what_is_no_text_file_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="pipe: not a regular file"):
        names(tmp_path)
    with pytest.raises(RequestError, match="pipe: not a regular file"):
        names(tmp_path / "pipe")
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(RequestError, match="s: not a regular file"):
            names(tmp_path)


def test_links_in_circles_and_to_nowhere(corpus):
    (corpus / "sub" / "up").symlink_to(corpus)
    with pytest.raises(RequestError, match=r"sub/up.*leads back"):
        names(corpus)
    (corpus / "sub" / "up").unlink()
    (corpus / "sub" / "me").symlink_to("me")
    with pytest.raises(RequestError, match="sub/me: cannot be read"):
        names(corpus)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(corpus):
    (corpus / "a.txt").chmod(0)
    with pytest.raises(PacklmError, match=r"a\.txt: cannot be read"):
        texts(corpus)


def test_repeats_are_refused(corpus, tmp_path):
    def refuse(**places):
        documents.refuse_repeats({split: documents.find([str(place) for place in given], Corpus()) for split, given in places.items()})

    refuse(train=[corpus / "sub"], test=[corpus / "a.txt"])
    with pytest.raises(RequestError, match=r"a\.txt: given twice, in corpus.train .* and in corpus.test"):
        refuse(train=[corpus], test=[corpus / "a.txt"])
    (tmp_path / "other").symlink_to(corpus)
    with pytest.raises(RequestError, match="given twice"):
        refuse(train=[corpus], test=[tmp_path / "other"])
    (tmp_path / "a.txt").write_text("another")
    with pytest.raises(RequestError, match=r"two documents would be called 'a\.txt'"):
        refuse(train=[corpus / "a.txt"], test=[tmp_path / "a.txt"])


def test_bad_utf8(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\nb\xffd \xef\xbf\xbd \xe2\x82\nfine")
    with pytest.raises(PacklmError, match=r"bad\.txt: not UTF-8 at byte offset 6, line 2 \(byte ff\).*on_bad_text replace or skip"):
        texts(path)
    assert texts(path, on_bad_text="replace") == ({"bad.txt": "good\nb�d � �\nfine"}, {"bad byte sequences replaced by U+FFFD": 2})
    assert texts(path, on_bad_text="skip") == ({}, {"documents skipped that are not UTF-8": 1})
    lines = {"document": "line"}
    with pytest.raises(PacklmError, match="byte offset 6, line 2"):
        texts(path, **lines)
    assert texts(path, on_bad_text="skip", **lines)[0] == {"bad.txt:1": "good\n", "bad.txt:3": "fine"}


def test_byte_order_mark(tmp_path):
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfHi \xef\xbb\xbf\n\xef\xbb\xbfthere \xff")
    found, counts = texts(tmp_path / "bom.txt", on_bad_text="replace")
    assert found == {"bom.txt": "Hi \ufeff\n\ufeffthere �"}
    assert counts["byte order marks dropped"] == 1
    with pytest.raises(PacklmError, match="byte offset 19,"):
        texts(tmp_path / "bom.txt")


def test_lines_are_documents_with_their_line_ends(tmp_path):
    (tmp_path / "l.txt").write_text("one\r\n\n  \ntwo\u2028still two\nthree", newline="")
    found, counts = texts(tmp_path / "l.txt", document="line")
    assert found == {"l.txt:1": "one\r\n", "l.txt:4": "two\u2028still two\n", "l.txt:5": "three"}
    assert counts == {"empty documents skipped": 2}


def test_dropped_lines(tmp_path):
    (tmp_path / "d.txt").write_text(".START \n\nkept .START\n  .START")
    rules = {"drop_lines": [r"\.START"]}
    assert texts(tmp_path / "d.txt", **rules) == ({"d.txt": "\nkept .START\n"}, {r"lines dropped by '\\.START'": 2})
    assert texts(tmp_path / "d.txt", document="line", **rules)[0] == {"d.txt:3": "kept .START\n"}
    (tmp_path / "d.txt").write_text(".START \n")
    assert texts(tmp_path / "d.txt", **rules) == ({}, {r"lines dropped by '\\.START'": 1, "empty documents skipped": 1})


def test_a_spelled_eos_at_word_level(tmp_path):
    (tmp_path / "e.txt").write_text("a\nb <eos>\n<eos> x<eos>")
    assert texts(tmp_path / "e.txt")[0] == {"e.txt": "a\nb <eos>\n<eos> x<eos>"}
    with pytest.raises(PacklmError, match=r"e\.txt: line 2 has a word spelled <eos>"):
        texts(tmp_path / "e.txt", spelled_eos=True)
    with pytest.raises(PacklmError, match=r"e\.txt: line 2 has"):
        texts(tmp_path / "e.txt", spelled_eos=True, document="line")
    found, counts = texts(tmp_path / "e.txt", spelled_eos=True, on_bad_text="replace")
    assert found == {"e.txt": "a\nb <unk>\n<unk> x<eos>"} and list(counts.values()) == [2]
    assert texts(tmp_path / "e.txt", spelled_eos=True, on_bad_text="skip")[0] == {}

"""Cleaning a block gives what the simplest function gives for each document by itself."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import documents, streams
from packlm.corpus.cleaning import clean
from packlm.corpus.formats import whole
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import codec
from packlm.text.whitespace import blank

EOS = re.compile(r"(?<!\S)<eos>(?!\S)")


def texts(data, spelled_eos="", **rules):
    """({name: text}, counts that are not zero) of a text file of these bytes, called `f`."""
    rules = Corpus(**rules)
    counts = Counter()
    part = whole(Source("f", data=data, encoding=codec(rules.encoding)), rules)
    blocks = list(documents.read_all([part], rules, spelled_eos, counts))
    return {name: text for block in blocks for name, text in block}, dict(+counts)


def refused(data, match, spelled_eos="", **rules):
    with pytest.raises(PacklmError, match=match) as caught:
        texts(data, spelled_eos, **rules)
    return str(caught.value)


def simplest(data, rules, spelled_eos, counts):
    """One document, cleaned step by step; None where it is skipped, `Stop` where the rules say so."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if rules.on_bad_text == "error":
            raise Stop from None
        if rules.on_bad_text == "skip":
            counts["documents skipped that are not UTF-8"] += 1
            return None
        text = data.decode(errors="replace")
        counts["bad byte sequences replaced by U+FFFD"] += text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    control = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
    if count := len(control.findall(text)):
        if rules.on_control == "error":
            raise Stop
        if rules.on_control == "skip":
            counts["documents skipped that have control characters"] += 1
            return None
        if rules.on_control == "remove":
            counts["control characters removed"] += count
            text = control.sub("", text)
    if rules.line_ends == "lf":
        counts["CR LF line ends turned into LF"] += text.count("\r\n")
        text = text.replace("\r\n", "\n")
    kept = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        pattern = next((pattern for pattern in rules.drop_lines if re.fullmatch(pattern, line.strip())), None)
        if pattern is None:
            kept.append(line)
        else:
            counts[f"lines dropped by {pattern!r}"] += 1
    if rules.document == "line" and len(kept) < len(re.findall(r"[^\n]*\n|[^\n]+", text)):
        return None
    text = "".join(kept)
    if not text.strip():
        if rules.on_empty == "error":
            raise Stop
        counts["empty documents skipped"] += 1
        return None
    if spelled_eos and (count := len(EOS.findall(text))):
        if rules.on_bad_text == "error":
            raise Stop
        if rules.on_bad_text == "skip":
            counts["documents skipped that have a word spelled <eos>"] += 1
            return None
        counts["words spelled <eos> replaced by <unk>"] += count
        text = EOS.sub("<unk>", text)
    return text


class Stop(Exception):
    """The rules say to stop."""


PIECES = [b"a", b"bc ", b"\n", b"\r\n", b"\r", b" ", b"\xff", b"\xc3\xa9", b"\xe2\x80", b"\xa8", b"\xe2\x80\xa8", b"\xc2", b"\xa0", b"\x00"]
PIECES += [b"\x1c", b"\x7f", b"<eos>", b" <eos> ", b"\ndrop \n", "\ufffd".encode(), "\u3000".encode(), "😀".encode(), b"\xf0\x9f"]
RULES = st.fixed_dictionaries(
    {
        "on_bad_text": st.sampled_from(["error", "replace", "skip"]),
        "on_control": st.sampled_from(["error", "keep", "remove", "skip"]),
        "line_ends": st.sampled_from(["keep", "lf"]),
        "on_empty": st.sampled_from(["skip", "error"]),
        "drop_lines": st.sampled_from([(), ("drop",), (r"b.*", "", r"\S")]),
        "document": st.sampled_from(["file", "line"]),
    }
)


@settings(deadline=None)
@given(found=st.lists(st.lists(st.sampled_from(PIECES)).map(b"".join)), rules=RULES, spelled_eos=st.sampled_from(["", "<eos>"]))
def test_blocks_are_cleaned_as_documents_are(found, rules, spelled_eos):
    rules = Corpus(**rules)
    ends = np.cumsum([len(document) for document in found], dtype=np.int64)
    data = np.frombuffer(b"".join(found), np.uint8)
    numbers = np.arange(1, len(found) + 1)
    block = RawDocuments(Source("f"), data, ends, numbers, np.array([0, *ends], np.int64)[: len(found)], is_text=True)
    counts, expected = Counter(), Counter()
    try:
        each = [(f"f:{number}", simplest(document, rules, spelled_eos, expected)) for number, document in enumerate(found, 1)]
    except Stop:
        with pytest.raises(PacklmError, match=r"f: .*(byte offset|line)"):
            clean(block, rules, spelled_eos, counts)
        return
    assert list(clean(block, rules, spelled_eos, counts)) == [(name, text) for name, text in each if text is not None]
    assert +counts == +expected


@given(found=st.lists(st.text() | st.text(" \n\t\u2003\u3000\xa0\x85\x1c\u200b"), max_size=8))
def test_blank_is_what_str_says(found):
    encoded = [text.encode() for text in found]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    starts = ends - [len(text) for text in encoded]
    assert blank(np.frombuffer(b"".join(encoded), np.uint8), starts, ends).tolist() == [not text.strip() for text in found]


def test_every_whitespace_character_is_blank_and_no_other_is():
    found = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x10000)]] + [" " * 40, " " * 40 + "x"]
    encoded = [text.encode() for text in found]
    ends = np.cumsum([len(text) for text in encoded])
    result = blank(np.frombuffer(b"".join(encoded), np.uint8), np.array([0, *ends[:-1]]), ends)
    assert result.tolist() == [text.isspace() for text in found]
    cut = np.frombuffer(b"a\xe2\x80", np.uint8)  # half of what may be a space, at the very end
    assert blank(cut, np.array([1]), np.array([3])).tolist() == [False]


@given(text=st.text())
def test_what_is_kept_comes_back_to_the_letter(text):
    data = text.encode()
    expected = {"f": text} if text.strip() else {}
    assert data.startswith(b"\xef\xbb\xbf") or texts(data, on_control="keep")[0] == expected


def test_bad_utf8():
    data = b"good\nb\xffd \xef\xbf\xbd \xe2\x82\nfine"
    told = r"f: not UTF-8 at byte offset 6, line 2 \(byte ff\).*--corpus.encoding.*on_bad_text replace or skip"
    refused(data, told)
    refused(data, told, document="line")
    assert texts(data, on_bad_text="replace") == ({"f": "good\nb�d � �\nfine"}, {"bad byte sequences replaced by U+FFFD": 2})
    assert texts(data, on_bad_text="skip") == ({}, {"documents skipped that are not UTF-8": 1})
    assert texts(data, on_bad_text="skip", document="line")[0] == {"f:1": "good\n", "f:3": "fine"}


def test_byte_order_marks():
    data = b"\xef\xbb\xbfHi \xef\xbb\xbf\n\xef\xbb\xbfthere \xff"
    found, counts = texts(data, on_bad_text="replace")
    assert found == {"f": "Hi \ufeff\n\ufeffthere �"} and counts["byte order marks dropped"] == 1
    refused(data, "byte offset 19, line 2")
    refused(data, "byte offset 19, line 2", document="line")
    assert texts(b"\xef\xbb\xbf") == ({}, {"byte order marks dropped": 1, "empty documents skipped": 1})
    assert texts("\ufeffa".encode("utf-8-sig"), encoding="utf-8-sig")[0] == {"f": "\ufeffa"}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "utf-16", "utf-16-le", "utf-32", "gb18030", "shift_jis", "utf-7", "iso2022_jp"])
def test_encodings(encoding, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 3)
    text = {"latin-1": "Bär\n\xb6\nété", "cp1251": "Да.\nНет"}.get(encoding, "日本\n\nテスト。\nabc")
    assert texts(text.encode(encoding), encoding=encoding) == ({"f": text}, {})
    lines = {f"f:{number}": line for number, line in enumerate(text.splitlines(keepends=True), 1) if line.strip()}
    assert texts(text.encode(encoding), encoding=encoding, document="line")[0] == lines


def test_bytes_that_are_not_in_the_encoding(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 3)
    data = "ab\ncde\n".encode("utf-16-le") + b"\x00\xd8g\x00\n\x00h\x00"  # half a surrogate pair in the third line
    refused(data, r"f: not utf-16-le at byte offset 14, line 3 \(byte 00 d8\)", encoding="utf-16-le")
    rules = {"encoding": "utf-16-le", "document": "line"}
    assert texts(data, on_bad_text="replace", **rules) == (
        {"f:1": "ab\n", "f:2": "cde\n", "f:3": "�g\n", "f:4": "h"},
        {"bad byte sequences replaced by U+FFFD": 1},
    )
    found, counts = texts(data, on_bad_text="skip", **rules)
    assert found == {"f:1": "ab\n", "f:2": "cde\n", "f:4": "h"} and counts == {"documents skipped that are not utf-16-le": 1}
    refused(b"a\nb\x81c", r"f: not cp1252 at byte offset 3, line 2 \(byte 81\)", encoding="cp1252")
    twice = texts(b"a\x81\x81", encoding="cp1252", on_bad_text="replace")
    assert twice == ({"f": "a��"}, {"bad byte sequences replaced by U+FFFD": 2})
    refused(b"a\nb\xffc", r"f: not ascii at byte offset 3, line 2 \(byte ff\)", encoding="ascii")
    refused(b"ab\n\x00c", r"f: control character U\+0000 at line 2", encoding="cp1252")
    refused("ab".encode("utf-16-le") + b"c", "f: not utf-16-le at byte offset 4", encoding="utf-16-le")


def test_control_characters():
    data = b"one\ntw\x00o\n\x7fthree\tfour\x0c"
    refused(data, r"f: control character U\+0000 at byte offset 6, line 2; remove it, or use --corpus.on_control")
    refused(data, r"offset 6, line 2;", document="line")
    refused(b"\xff\n" + data, r"offset 8, line 3;", on_bad_text="replace")
    refused(b"\xff\n" + data, r"offset 8, line 3;", on_bad_text="skip", document="line")
    assert texts(data, on_control="keep") == ({"f": data.decode()}, {})
    assert texts(data, on_control="remove") == ({"f": "one\ntwo\nthree\tfour\x0c"}, {"control characters removed": 2})
    found, counts = texts(data, on_control="skip", document="line")
    assert found == {"f:1": "one\n"} and counts == {"documents skipped that have control characters": 2}
    found, _ = texts(b"\xc3\x00\xa9", on_control="remove", on_bad_text="replace")
    assert found == {"f": "��"}  # removing comes after: it makes no character of two halves


def test_what_a_file_looks_like():
    told = refused("Hello there.\n".encode("utf-16"), "not UTF-8 at byte offset 0, line 1")
    assert "looks like UTF-16 (--corpus.encoding utf-16)" in told
    assert "--corpus.encoding utf-16-be" in refused("Hello there.\n".encode("utf-16-be"), r"U\+0000 at byte offset 0")
    assert "--corpus.encoding utf-16-le" in refused("Hello there.\n".encode("utf-16-le"), r"U\+0000 at byte offset 1")
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
    assert "looks like a binary file (remove it from the corpus)" in refused(png, "not UTF-8 at byte offset 0")
    assert "binary" in refused(b"\x7fELF\x02\x01\x01\x00" + b"\x00" * 20, r"control character U\+007F at byte offset 0")
    assert "looks" not in refused(b"A line of text with one \x00 in it, and more to come.", r"U\+0000")


def test_line_ends():
    data = b"a\r\nb\rc\n\r\n"
    assert texts(data) == ({"f": "a\r\nb\rc\n\r\n"}, {})
    assert texts(data, line_ends="lf") == ({"f": "a\nb\rc\n\n"}, {"CR LF line ends turned into LF": 2})
    apart = RawDocuments(Source("f"), np.frombuffer(b"a\r\nb\r\n", np.uint8), np.array([5, 6]), np.array([1, 2]), is_text=True)
    assert list(clean(apart, Corpus(line_ends="lf", on_empty="skip"), False, Counter())) == [("f:1", "a\nb\r")]
    assert texts(data, line_ends="lf", document="line")[0] == {"f:1": "a\n", "f:2": "b\rc\n"}


def test_dropped_lines():
    data, rules = b".START \n\nkept .START\n  .START", {"drop_lines": [r"\.START"]}
    assert texts(data, **rules) == ({"f": "\nkept .START\n"}, {r"lines dropped by '\\.START'": 2})
    assert texts(data, document="line", **rules) == (
        {"f:3": "kept .START\n"},
        {r"lines dropped by '\\.START'": 2, "empty documents skipped": 1},
    )
    assert texts(b".START \n", **rules) == ({}, {r"lines dropped by '\\.START'": 1, "empty documents skipped": 1})


def test_empty_documents():
    assert texts(b"") == ({}, {"empty documents skipped": 1}) and texts(b"", document="line") == ({}, {})
    refused(b"", "f: byte offset 0, line 1: a document of nothing but whitespace; .*on_empty skip", on_empty="error")
    refused(b"a\n\nb", "f: byte offset 2, line 2: a document of nothing", on_empty="error", document="line")


def test_a_word_spelled_eos():
    data = b"a\nb <eos>\n<eos> x<eos>"
    assert texts(data)[0] == {"f": "a\nb <eos>\n<eos> x<eos>"}
    for by in ("file", "line"):
        refused(data, "f: byte offset 4, line 2 has a word spelled <eos>", spelled_eos="<eos>", document=by)
    found, counts = texts(data, spelled_eos="<eos>", on_bad_text="replace")
    assert found == {"f": "a\nb <unk>\n<unk> x<eos>"} and counts == {"words spelled <eos> replaced by <unk>": 2}
    assert texts(data, spelled_eos="<eos>", on_bad_text="skip")[0] == {}
    spelled = "<[eE][oO][sS]>"  # of a tokenizer that turns text into lower case
    refused(b"a <EOS>", "f: byte offset 2, line 1 has a word spelled <EOS>", spelled_eos=spelled)
    found, counts = texts(b"a <EOS> <Eos>. <eos>", spelled_eos=spelled, on_bad_text="replace")
    assert found == {"f": "a <unk> <Eos>. <unk>"} and counts == {"words spelled <eos> replaced by <unk>": 2}

"""Files in several encodings: listed at once, or each read in its own."""

import gzip
import json
import pickle
from collections import Counter

import pytest

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus import bad_files, discovery, documents
from packlm.corpus.cleaning import C1, GARBLED
from packlm.corpus.transcoding import NotEncoded

FRENCH = "Le café était fermé à l’heure où l’élève arriva. « Ça n’a pas d’importance », répondit-il, déçu.\n"
RUSSIAN = "Вчера вечером мы долго гуляли по берегу реки и говорили о старых книгах. Она сказала, что завтра будет дождь.\n"
ENCODINGS = {"a.txt": "utf-8", "b.txt": "cp1252", "c.txt": "utf-16", "d.txt": "utf-16-be", "e.txt": "utf-8-sig", "f.txt": "ascii"}


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, encoding in ENCODINGS.items():
        (folder / name).write_bytes((FRENCH * 3).encode(encoding, "ignore"))
    (folder / "g.txt").write_bytes((RUSSIAN * 3).encode("cp1251"))
    (folder / "h.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": FRENCH}, ensure_ascii=False).encode("cp1252") + b"\n"))
    (folder / "i.csv").write_bytes(f'text\n"{FRENCH}"\n'.encode("cp1252"))
    (folder / "j.json").write_bytes(json.dumps([{"text": RUSSIAN}], ensure_ascii=False).encode("utf-16"))
    return folder


def read(folder, **rules):
    counts = Counter()
    return {name: text for block in documents.read_locations([str(folder)], Corpus(**rules), "", counts) for name, text in block}, +counts


def test_auto_reads_each_file_in_its_own_encoding(mixed):
    found, counts = read(mixed, encoding="auto")
    expected = {f"mixed/{name}": (FRENCH * 3).encode("ascii", "ignore").decode() if name == "f.txt" else FRENCH * 3 for name in ENCODINGS}
    expected |= {"mixed/g.txt": RUSSIAN * 3, "mixed/h.jsonl.gz:1": FRENCH, "mixed/i.csv:1": FRENCH, "mixed/j.json:1": RUSSIAN}
    assert found == expected
    assert counts == {
        "files read as UTF-8": 3, "files read as cp1252": 3, "files read as utf-16": 2, "files read as utf-16-be": 1,
        "files read as cp1251": 1, "byte order marks dropped": 1,
    }  # fmt: skip


def test_utf8_is_read_as_without_auto(mixed):
    for name in ("b.txt", "c.txt", "d.txt", "g.txt", "h.jsonl.gz", "i.csv", "j.json"):
        (mixed / name).unlink()
    plain, auto = read(mixed), read(mixed, encoding="auto")
    assert plain[0] == auto[0] and auto[1] - plain[1] == {"files read as UTF-8": 3}


def test_all_bad_files_are_listed_at_once_with_their_likely_encodings(mixed):
    with pytest.raises(NotEncoded) as caught:
        read(mixed)
    heading, *lines, remedy = str(caught.value).splitlines()
    assert heading == "7 files are not in their encoding:" and "--corpus.encoding auto" in remedy and "on_bad_text" in remedy
    assert lines == [
        f"  {mixed}/b.txt: not UTF-8 at byte offset 6, line 1 (byte e9), likely cp1252",
        f"  {mixed}/c.txt: not UTF-8 at byte offset 0, line 1 (byte ff), which looks like UTF-16 (--corpus.encoding utf-16)",
        f"  {mixed}/d.txt: not UTF-8 at byte offset 13, line 1 (byte e9), which looks like UTF-16 (--corpus.encoding utf-16-be)",
        f"  {mixed}/g.txt: not UTF-8 at byte offset 0, line 1 (byte c2), likely cp1251",
        f"  {mixed}/h.jsonl.gz: not UTF-8 at byte offset 16, line 1 (byte e9), likely cp1252",
        f"  {mixed}/i.csv: not UTF-8 at byte offset 12, line 2 (byte e9), likely cp1252",
        f"  {mixed}/j.json: not UTF-8 at byte offset 0, line 1 (byte ff), which looks like UTF-16 (--corpus.encoding utf-16)",
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as it comes from a worker process


def test_of_many_bad_files_the_rest_is_counted_and_one_is_told_in_a_line(tmp_path):
    for number in range(1, 24):
        (tmp_path / f"{number:02}.txt").write_bytes(b"caf\xe9 au lait\n")
        if number in (1, 23):
            with pytest.raises(NotEncoded) as caught:
                read(tmp_path)
            if number == 1:
                assert "\n" not in str(caught.value) and "likely cp1252; convert to UTF-8, read each file" in str(caught.value)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + bad_files.MAX_LISTED + 2 and lines[-2] == "  and 13 more" and lines[0].startswith("23 files")


def test_a_binary_file_is_no_text_in_any_encoding(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)))
    (tmp_path / "b.txt").write_bytes(FRENCH.encode("cp1252"))
    for encoding in ("auto", "utf-8"):
        with pytest.raises(PacklmError, match=r"a\.png: not UTF-8 .* looks like a binary file \(remove it"):
            read(tmp_path, encoding=encoding)
    found, counts = read(tmp_path, encoding="auto", on_bad_text="skip")
    assert list(found.values()) == [FRENCH] and counts["documents skipped that are not UTF-8"] == 1


def test_files_that_cannot_be_read_are_listed_at_once(tmp_path):
    for number in range(12):
        (tmp_path / f"{number:02}.txt").write_bytes(b'{"text": "a"}\n')
    (tmp_path / "z.html").write_bytes(b"<p>")
    with pytest.raises(RequestError) as caught:
        read(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "13 files cannot be read:" and lines[-1] == "  and 3 more" and "looks like JSON Lines; read it so with" in lines[1]
    assert len(read(tmp_path, format="text")[0]) == 13


@pytest.mark.parametrize(
    ("text", "written", "taken_for", "counts"),
    [
        ("“Yes” – he said. It’s so.", "cp1252", "latin-1", {C1: 4}),
        ("Été à la forêt", "utf-8", "cp1252", {GARBLED: 4}),
        ("Été à la forêt", "utf-8", "latin-1", {GARBLED: 4, C1: 1}),
        ("It’s – so, “yes", "utf-8", "cp1252", {GARBLED: 3}),
        ("Она сказала", "utf-8", "latin-1", {GARBLED: 10, C1: 2}),
        ("« Café », dit-il ; « à » ? Noël… “Â” Ñandú ÃO Ðal", "utf-8", "utf-8", {}),
        ("Été à la forêt", "latin-1", "latin-1", {}),
    ],
)
def test_signs_of_a_wrong_encoding_are_counted(tmp_path, text, written, taken_for, counts):
    data = text.encode(written)
    if taken_for == "cp1252":
        data = data.decode("cp1252").encode("utf-8")  # as such text is found: in valid UTF-8
        taken_for = "utf-8"
    (tmp_path / "a.txt").write_bytes(data)
    assert read(tmp_path, encoding=taken_for)[1] == counts


def test_two_documents_never_share_a_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    (tmp_path / "a.jsonl:2").write_text("Three.")
    (tmp_path / "b.txt").write_text("b\nc\n")
    (tmp_path / "b.txt:2").write_text("d\n")

    def check(**rules):
        discovery.check_unique({"train": discovery.find([str(tmp_path)], Corpus(**rules), "train", tmp_path)}, Corpus(**rules))

    with pytest.raises(
        RequestError, match=r"two documents would be called '.*/a\.jsonl:2': one of .*a\.jsonl in corpus\.train, .*rename one"
    ):
        check()
    (tmp_path / "a.jsonl:2").rename(tmp_path / "a.jsonl:x")
    check()
    check(document="line")  # `b.txt:2` is a file of lines, too: its documents are `b.txt:2:1`, ...
    for folder in ("x", "y"):
        (tmp_path / folder / "same").mkdir(parents=True)
        (tmp_path / folder / "same" / "a.txt").write_text(folder)
    with pytest.raises(RequestError, match=r"two documents would be called 'same/a\.txt'"):
        found = discovery.find([str(tmp_path / "x" / "same"), str(tmp_path / "y" / "same")], Corpus(), "train", tmp_path)
        discovery.check_unique({"train": found}, Corpus())

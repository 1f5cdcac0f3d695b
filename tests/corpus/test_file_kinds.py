"""The kind of a file: what it is read as, or why it is refused."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pytest

from packlm.corpus.file_kinds import HEAD_BYTES, kind, looks_like

OBJECTS = [{"id": 1, "text": "One."}, {"id": 2, "text": "Two."}]
LINES = "".join(json.dumps(value) + "\n" for value in OBJECTS).encode()
ARRAY, PRETTY, OBJECT = json.dumps(OBJECTS).encode(), json.dumps(OBJECTS, indent=2).encode(), json.dumps(OBJECTS[0], indent=1).encode()
TABLE = b"word\tzone\titem\nIf\t1\t1\nyou\t2\t1\n"


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("a.txt", b"{braces} in text", "text"), ("a.txt", b"[[File:x]] is wiki text", "text"), ("a.txt", b"", "text"),
        ("a", b"Text.\n", "text"),
        ("a.txt", TABLE, "text"), ("wiki.train.tokens", b" = A =\n\n text\n", "text"), ("a.jsonl.bak", b"", "text"),
        ("a.jsonl", LINES, "jsonl"), ("a.ndjson", LINES, "jsonl"), ("a.csv", b"text\nx", "csv"), ("a.TSV", b"", "csv"),
        ("a.tab", b"", "csv"),
        ("a.parquet", b"PAR1\0\0", "parquet"),
        ("a.json", LINES, "jsonl"), ("a.json", b"\xef\xbb\xbf" + LINES, "jsonl"), ("a.json", ARRAY, "json"), ("a.json", PRETTY, "json"),
        ("a.json", OBJECT, "json"), ("a.json", b'{"text": "' + b"x" * HEAD_BYTES, "jsonl"), ("a.json", b"", "jsonl"),
    ],
)  # fmt: skip
def test_what_is_read(name, head, format):
    found = kind(name, head)
    assert (found.format, found.problem, found.what) == (format, "", "")


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("a.txt", LINES, "looks like JSON Lines; read it so with --corpus.format jsonl, let its name end in .jsonl, or read it as text"),
        ("a", ARRAY, "looks like JSON; read it so with --corpus.format json, let its name end in .json, or"),
        ("c4.00001", PRETTY, "looks like JSON;"),
        ("a.html", b"Any.", "looks like HTML or XML; extract its text, or read it as text with --corpus.format text"),
        ("a", b"\n<!DOCTYPE html>\n<html>", "looks like HTML"), ("a.txt", b'<?xml version="1.0"?>', "looks like HTML or XML"),
        ("a.tok", TABLE, "looks like columns separated by tabs; read it so with --corpus.format csv, let its name end in .tsv, or"),
    ],
)  # fmt: skip
def test_what_is_refused_unless_its_format_is_set(name, head, message):
    assert kind(name, head).refusal("--corpus.format").startswith(message)


def archive(kind):
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("x"))
    else:
        zipfile.ZipFile(stream, "w").writestr("x", "y")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "what", "message"),
    [
        (gzip.compress(LINES), "packed", "gzip data; let its name end in .gz"), (lzma.compress(LINES), "packed", "xz data; decompress it"),
        (bz2.compress(LINES), "packed", "bzip2 data; decompress it"), (archive("zip"), "packed", "a zip archive"),
        (b"\x28\xb5\x2f\xfd\x24\x04", "packed", "zstd data; let its name end in .zst"), (archive("tar"), "packed", "a tar archive"),
        ("Some text.\n".encode("utf-16"), "utf-16", "UTF-16; --corpus.encoding utf-16"),
        ("Some text.\n".encode("utf-16-be"), "utf-16", "UTF-16; --corpus.encoding utf-16-be"),
        (b"\x89PNG\r\n\x1a\n\x00", "binary", "a binary file; remove it from the corpus"), (b"%PDF-1.7\n", "binary", "a binary file"),
        (b"PAR1\x15\x00", "binary", "a binary file"), (bytes(range(256)), "binary", "a binary file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",  # archives hold the time
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv", "a", "a.tok"])
def test_what_is_no_text_is_told_whatever_its_name(data, what, message, name):
    found = kind(name, data)
    assert found.what == what and f"looks like {message}" in found.refusal("--corpus.format")
    assert looks_like(data).startswith(f", which looks like {message.partition(';')[0]}")


def test_json_in_utf16_is_json():
    for name, data, format in [
        ("a.json", LINES, "jsonl"),
        ("a.json", PRETTY, "json"),
        ("a.jsonl", LINES, "jsonl"),
        ("a.csv", b"text", "csv"),
    ]:
        assert kind(name, data.decode().encode("utf-16"))[::3] == (format, "utf-16")
    assert kind("a.txt", LINES.decode().encode("utf-16")).problem == "looks like JSON Lines"


def test_text_looks_like_nothing():
    assert (
        looks_like(b"A line of text with one \x00 in it, and more to come.") == looks_like(b"") == looks_like("Bär".encode("latin-1")) == ""
    )

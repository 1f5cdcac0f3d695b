"""JSON files: arrays, objects, and objects one after another give what the module json gives, however they are cut into blocks."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import discovery, documents, formats, streams
from packlm.corpus.sources import Source


def read(data, **rules):
    rules, counts = Corpus(on_control="keep", **rules), Counter()
    part = formats.whole(Source("f", data=data, format="json"), rules)
    return {name: text for block in documents.read_all([part], rules, "", counts) for name, text in block}, dict(+counts)


TEXTS = st.lists(st.text(max_size=9) | st.sampled_from(["] , [", '"}', "{", "é😀", "\\"]), max_size=6)


@settings(deadline=None)
@given(
    texts=TEXTS,
    indent=st.sampled_from([None, 0, 2]),
    ascii=st.booleans(),
    way=st.sampled_from(["array", "objects", "both"]),
    block=st.integers(1, 40),
)
def test_records_are_those_of_the_module_json(texts, indent, ascii, way, block):
    records = [{"n": number, "text": text} for number, text in enumerate(texts)]
    values = {"array": [records], "objects": records, "both": [records[:1], *records[1:2], records[2:]]}[way]
    data = "\n".join(json.dumps(value, indent=indent, ensure_ascii=ascii) for value in values).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        found, counts = read(data)
    assert found == {f"f:{number}": text for number, text in enumerate(texts, 1) if text.strip()}
    assert not counts.get("records skipped that could not be read")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text": "a"}, {"text": "b"', r"f: record 2: not JSON \(.*correct the file"),
        (b'[{"text": "a"}, {"text": "b"}', r"f: record 3: not JSON \(an array is not closed\)"),
        (b'[{"text": "a"}, 7]', r"f: record 2: a number, not an object; .*on_bad_text skip"),
        (b'[{"text": "a"}, {"body": "b"}]', r"f: record 2: no field 'text' \(there are: 'body'; name one with --corpus.text_field\)"),
        (b'[{"text": null}]', r"f: record 1: null in 'text', not a string"),
        (b'{"text": ' + b"[" * 100_000, "f: record 1: JSON nested too deeply"),
        (b'{"text": "a"}\n{"text": "b\xff"}', r"f: not UTF-8 at byte offset 25 \(byte ff\).*--corpus.encoding auto"),
        ('{"text": "a"}'.encode("utf-16-le"), r"f: record 1: .*looks like UTF-16 \(--corpus.encoding utf-16-le\)"),
    ],
)
def test_what_cannot_be_read_is_named(data, message):
    with pytest.raises(PacklmError, match=message):
        read(data)


def test_bad_records_are_skipped_and_counted():
    data = b'[{"text": "a"}, 7, {"text": 1}, {"text": "b"}, {"text": "c\xff"}]'
    found, counts = read(data, on_bad_text="skip")
    assert found == {"f:1": "a", "f:4": "b"}
    assert counts == {"records skipped that could not be read": 2, "documents skipped that are not UTF-8": 1}
    assert read(data, on_bad_text="replace")[0]["f:5"] == "c\ufffd"
    for block in range(1, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "BLOCK", block)
            found, counts = read(b'[123456, {"text": "a"}, 7]', on_bad_text="skip")
        assert found == {"f:2": "a"} and counts == {"records skipped that could not be read": 2}


def test_a_record_that_is_too_long_is_not_held(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 50)
    for data in (b'[{"text": "' + b"x" * 500 + b'"}]', b'[{"text": "' + b"x" * 5000):
        with pytest.raises(PacklmError, match=r"f: record 1: a document longer than corpus\.max_document_bytes = 99"):
            read(data, max_document_bytes=99)


def test_json_is_never_taken_for_text(tmp_path):
    """Names as in C4, and arrays: each is read as what it is."""
    import gzip

    lines = b'{"text": "One."}\n{"text": "Two."}\n'
    for name, data in {
        "a.json.gz": gzip.compress(lines),
        "b.json": lines,
        "c.ndjson": lines,
        "d.json": b'[{"text": "One."},\n{"text": "Two."}]',
    }.items():
        (tmp_path / name).write_bytes(data)
    counts = Counter()
    found = [text for block in documents.read_locations([str(tmp_path)], Corpus(), "", counts) for _, text in block]
    assert found == ["One.", "Two."] * 4
    assert [source.format for source in discovery.find([str(tmp_path)], Corpus(), "train", tmp_path)] == ["jsonl", "jsonl", "jsonl", "json"]

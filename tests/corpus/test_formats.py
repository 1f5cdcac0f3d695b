"""Formats: the parts that files are cut into, and a new format in one object."""

import hashlib
import re
from collections import Counter
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import discovery, documents, formats, line_cuts, streams
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Source


def scan(data, part_bytes, name="x", **rules):
    """The parts of a source of these bytes."""
    source = Source(name, data=data, format="jsonl" if name.endswith("jsonl") else "text", encoding=rules.pop("codec", "utf-8"))
    parts, sha256 = formats.scan(source, Corpus(**rules), part_bytes)
    assert sha256 == hashlib.sha256(data).hexdigest()
    return parts


LINES = st.lists(st.sampled_from([b"a", b"", b" ", b"=", b"= x", b"bcd", b"\xff", b"\r"])).map(b"\n".join)


@given(data=LINES, part_bytes=st.integers(1, 12), by=st.sampled_from(["line", "paragraph", "pattern"]))
def test_parts_begin_at_the_first_document_at_or_after_each_multiple(data, part_bytes, by):
    parts = scan(data, part_bytes, document=by, document_pattern="=.*" if by == "pattern" else "")
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
    assert [part.start for part in parts] == expected
    assert [part.stop for part in parts] == [*expected[1:], len(data)]
    assert [part.number for part in parts] == [data[:start].count(b"\n") + 1 for start in expected]
    assert all(part.size == part.stop - part.start for part in parts)


def test_what_is_cut_and_what_is_not(monkeypatch):
    monkeypatch.setattr(line_cuts, "_BLOCK", 3)
    data = b'{"text": "a"}\n' * 10
    assert len(scan(data, 1, "x.jsonl")) == 10 and len(scan(data, 14, "x.jsonl")) == 10
    assert len(scan(data, 20, "x.jsonl")) == 7
    assert len(scan(data, 1, document="file")) == 1
    assert len(scan(data, 1, document="line", codec="cp1252")) == 10
    assert len(scan(data, 1, document="line", codec="utf-16")) == 1
    assert len(scan(b"", 1, document="line")) == 1
    compressed = Source("x.gz", data=data, compression="gz")
    assert len(formats.scan(compressed, Corpus(document="line"), 1)[0]) == 1
    long = b" " * 9000 + b"a\n" + b"b\n\nc"
    assert [part.start for part in scan(long, 9002, document="paragraph")] == [0, 9005]


def test_parquet_is_cut_at_row_groups(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": range(10), "text": ["abc"] * 10}), path, row_group_size=3)
    source = Source("x.parquet", path, format="parquet")
    parts, sha256 = formats.scan(source, Corpus(), 1)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(part.start, part.stop, part.number) for part in parts] == [(0, 1, 1), (1, 2, 4), (2, 3, 7), (3, 4, 10)]
    assert formats.scan(source, Corpus(), 1 << 30) == ([formats.whole(source, Corpus())], sha256)
    two, _ = formats.scan(source, Corpus(), parts[0].size + 1)
    assert [(part.start, part.stop) for part in two] == [(0, 2), (2, 4)]
    with pytest.raises(PacklmError, match=r"x\.parquet: no column 'body'; there are 'n', 'text'"):
        formats.scan(source, Corpus(text_field="body"))
    with pytest.raises(PacklmError, match=r"x\.parquet: column 'n' holds int64, not strings"):
        formats.scan(source, Corpus(text_field="n"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PacklmError, match=r"x\.parquet: damaged"):
        formats.scan(source, Corpus())
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert len(formats.scan(source, Corpus())[0]) == 1


class Recipes(Format):
    """A toy format: documents separated by lines of three dashes."""

    suffixes = (".recipes",)

    def read(self, part, rules, counts):
        (block,) = streams.utf8(part, rules, counts)[1]
        recipes = block.split(b"---\n")
        data = np.frombuffer(b"".join(recipes), np.uint8)
        yield RawDocuments(part.source, data, np.cumsum([*map(len, recipes)]), np.arange(1, len(recipes) + 1))


def test_a_format_is_one_object_in_a_table(tmp_path, monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "recipes", Recipes())
    (tmp_path / "a.recipes").write_bytes(b"Boil water.\n---\nFry an egg.\n---\nBake.\n")
    (tmp_path / "b.txt").write_bytes(b"Plain.")
    rules, counts = Corpus(), Counter()
    sources = discovery.find([str(tmp_path)], rules, "train", tmp_path)
    assert [source.format for source in sources] == ["recipes", "text"]
    parts = [part for source in sources for part in formats.scan(source, rules)[0]]
    (block,) = documents.read_all(parts, rules, "", counts)
    names = [f"{tmp_path.name}/{name}" for name in ("a.recipes:1", "a.recipes:2", "a.recipes:3", "b.txt")]
    assert list(block) == list(zip(names, ["Boil water.\n", "Fry an egg.\n", "Bake.\n", "Plain."], strict=True))


def test_every_format_has_its_name_in_the_settings():
    assert {"auto", *formats.FORMATS} == set(get_args(Corpus.model_fields["format"].annotation))

"""Documents do not depend on how a file is cut into parts, and every damaged file ends in an error that names it."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import documents, formats, streams
from packlm.corpus.sources import Source
from tests.corpus.reading import MANY, refused, text

ROOT = Path(__file__).resolve().parents[2]


def simplest(content, by):
    """(line number, text) of the documents of a text, before cleaning."""
    found, before = [], ""
    for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", content), 1):
        begins = {"line": True, "paragraph": not before.strip(), "pattern": number == 1 or line.strip().startswith("=")}[by]
        if by != "paragraph" or line.strip():
            if begins:
                found.append([number, line])
            else:
                found[-1][1] += line
        before = line
    return {f"f:{number}": document for number, document in found if document.strip()}


WORDS = ["a", "bc", "\n", "\n\n", " ", "\r\n", "\n= é =\n", "=", "\u2028", "\n\xa0\n", "\u3000", "\n \t\n", "\ufeff", "😀"]


@MANY
@given(
    content=st.lists(st.sampled_from(WORDS)).map("".join),
    by=st.sampled_from(["line", "paragraph", "pattern"]),
    part_bytes=st.integers(1, 20),
    block=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8", "utf-16", "gbk", "cp1252"]),
)
@example("a\n\ufeffb\n", "line", 1, 9, "utf-8")  # no byte order mark, though a part begins with it
def test_documents_are_those_of_the_file_however_it_is_cut(content, by, part_bytes, block, encoding):
    data = content.encode(encoding, "ignore")
    content = data.decode(encoding)
    marked = content.startswith("\ufeff") and encoding != "cp1252"
    rules = {"document": by, "document_pattern": "=.*" if by == "pattern" else "", "encoding": encoding}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        found, counts = text(data, part_bytes, **rules)
    assert found == simplest(content[marked:], by)
    assert (found, counts) == text(data, **rules)
    assert counts.get("byte order marks dropped", 0) == marked


HEADINGS = ["= a =\n", " = b = \r\n", "\n", " \n", "\u3000\n", "text\n", "= 4 + 5 =", "\t"]


@MANY
@given(
    content=st.lists(st.sampled_from(HEADINGS)).map("".join),
    above=st.sampled_from(["", r"\n", "\n"]),
    below=st.sampled_from(["", r"\n", "\n"]),
    part_bytes=st.integers(1, 20),
    block=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8", "gbk", "utf-16"]),
)
def test_a_pattern_may_ask_for_blank_lines_around(content, above, below, part_bytes, block, encoding):
    lines = re.findall(r"[^\n]*\n|[^\n]+", content)
    expected = {}
    for number, (before, line, after) in enumerate(zip(["\n", *lines], lines, [*lines[1:], "text"], strict=False), 1):
        is_heading = re.fullmatch("= [^=].* =", line.strip()) and not (above and before.strip()) and not (below and after.strip())
        if number == 1 or is_heading:
            name = f"f:{number}"
        expected[name] = expected.get(name, "") + line
    expected = {name: document for name, document in expected.items() if document.strip()}
    rules = {"document": "pattern", "document_pattern": f"{above}= [^=].* ={below}", "encoding": encoding}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        assert text(content.encode(encoding), part_bytes, **rules)[0] == expected
    assert text(content.encode(encoding), **rules)[0] == expected


@MANY
@given(
    data=st.lists(
        st.sampled_from([b"a", b"\n", b"\xff", b"\xe2\x80", b"\x81", b"\x00", b"\r\n", b"x y", b"\n\n", b"= b\n", b"\xa4\xd4"])
    ).map(b"".join),
    part_bytes=st.integers(1, 9),
    rules=st.fixed_dictionaries(
        {
            "document": st.sampled_from(["line", "paragraph", "pattern"]),
            "encoding": st.sampled_from(["utf-8", "shift_jis", "gbk", "big5", "euc_kr", "gb18030", "euc_jp", "cp1252"]),
            "on_bad_text": st.sampled_from(["replace", "skip"]),
            "on_control": st.sampled_from(["remove", "skip"]),
            "line_ends": st.sampled_from(["keep", "lf"]),
            "drop_lines": st.sampled_from([(), ("x y",)]),
        }
    ),
)
def test_bad_bytes_and_counts_are_those_of_the_file_however_it_is_cut(data, part_bytes, rules):
    rules["document_pattern"] = "= .*" if rules["document"] == "pattern" else ""
    assert text(data, part_bytes, **rules) == text(data, **rules)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    (tmp_path / "s.txt").write_bytes(b"a\nb\n")
    rules, source = Corpus(document="line"), Source("s", tmp_path / "s.txt")
    (part,), _ = formats.scan(source, rules)
    (tmp_path / "s.txt").write_bytes(b"a\n")
    with pytest.raises(PacklmError, match=r"s\.txt: ends after 2 bytes and had 4"):
        list(documents.read_all([part], rules, "", Counter()))


@pytest.mark.parametrize(
    ("name", "data", "rules", "place"),
    [
        ("f.txt", b"abcdefghijk", {}, "the whole file"),
        ("f.txt", b"a\nb\nabcdefghijk", {"document": "line"}, "line 3"),
        ("f.txt", b"a\nabcdefghijk\nb\n", {"document": "line"}, "line 2"),
        ("f.txt", b"a\n\nabc\ndef\nghijk\n\n", {"document": "paragraph"}, "line 3"),
        ("f.txt", b"= a\n= b\nabc\ndef\nghijk\n= c", {"document": "pattern", "document_pattern": "= .*"}, "line 2"),
        ("f.jsonl", b'{"text": "a"}', {}, "line 1"),
        ("f.csv", b"text\na\nabcdefghijk\n", {}, "line 3"),
    ],
)
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_documents_that_are_too_long(tmp_path, monkeypatch, name, data, rules, place, block):
    monkeypatch.setattr(streams, "BLOCK", block)
    refused(
        tmp_path, name, data, rf"{name}: {place}: a document longer than corpus.max_document_bytes = 10;", max_document_bytes=10, **rules
    )


def test_locations_of_several_formats_are_read(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"Text {number}.")
    (tmp_path / "r.jsonl").write_text('{"text": "A record."}')
    pq.write_table(pa.table({"text": ["A row."]}), tmp_path / "t.parquet")
    counts = Counter()
    (block,) = documents.read_locations([str(tmp_path)], Corpus(), "", counts)
    texts = ["Text 0.", "Text 1.", "Text 2.", "A record.", "A row."]
    named = [f"{tmp_path.name}/{name}" for name in ("0.txt", "1.txt", "2.txt", "r.jsonl:1", "t.parquet:1")]
    assert list(block) == list(zip(named, texts, strict=True)) and not counts


def test_blocks_hold_whole_documents_and_not_much_more(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 100)
    rules, counts = Corpus(document="line"), Counter()
    part = formats.whole(Source("f", data=b"0123456789\n" * 1000), rules)
    sizes = [len(block.data) for block in documents.read_all([part], rules, "", counts)]
    assert sum(sizes) == 11_000 and max(sizes) <= 200 and len(sizes) >= 55


BYTES = [
    b"",
    b" \n",
    b"One.",
    "Zw\u00f6lf \U0001f600\r\n".encode(),
    b"a\xff",
    b"\xc3",
    b"\xa9b",
    b"a\x00b",
    b"drop me\nkeep",
    b"x <eos> y",
    b"\xef\xbb\xbfmark",
]


@MANY
@given(
    st.lists(st.sampled_from(BYTES), min_size=2, max_size=12),
    st.fixed_dictionaries(
        {
            "on_bad_text": st.sampled_from(["error", "skip", "replace"]),
            "on_control": st.sampled_from(["error", "skip", "remove", "keep"]),
            "on_empty": st.sampled_from(["error", "skip"]),
            "line_ends": st.sampled_from(["keep", "lf"]),
            "drop_lines": st.sampled_from([(), ("drop.*",)]),
        }
    ),
)
def test_small_files_that_are_cleaned_together_are_as_if_cleaned_one_by_one(contents, rules):
    rules = Corpus(**rules)
    parts = [formats.whole(Source(f"f{number}", data=data), rules) for number, data in enumerate(contents)]

    def cleaned(groups):
        counts, found = Counter(), []
        try:
            for group in groups:
                found += [pair for block in documents.read_all(group, rules, "<eos>", counts) for pair in block]
        except PacklmError as error:
            return str(error)
        return found, +counts

    assert cleaned([parts]) == cleaned([part] for part in parts)


PEAK = """
import json, resource, sys
from collections import Counter
from packlm.config import Corpus
from packlm.base.errors import PacklmError
from packlm.corpus import discovery, documents, formats
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
list(documents.read_locations(["README.md"], Corpus(), "", Counter()))
for path, rules in json.loads(sys.argv[1]):
    rules, before, end, count = Corpus(**rules), peak(), "", 0
    (source,) = discovery.find([path], rules, "train", None)
    try:
        for part in formats.scan(source, rules)[0]:
            for block in documents.read_all([part], rules, "", Counter()):
                count += len(block)
    except PacklmError as error:
        end = str(error)
    print(json.dumps([peak() - before, count, end]))
"""


def test_memory_is_bounded_by_the_longest_document(tmp_path):
    """A bomb (1 GiB of one letter, in gzip) ends in an error; more text takes no more memory; a line of 50 MB takes a few times as much."""
    bomb, lines, one = (tmp_path / name for name in ("bomb.gz", "lines.txt", "one.txt"))
    bomb.write_bytes(gzip.compress(b"a" * (1 << 22)) * 256)
    line = b"A line of some length, as lines are in files of lines.\n"
    lines.write_bytes(line * 1_000_000)
    one.write_bytes(b"word " * 10_000_000)
    small = {"max_document_bytes": 1 << 24}
    jobs = [(lines, {"document": "line"}), (bomb, small), (bomb, {"document": "line", **small}), (one, {"document": "line"})]
    command = [sys.executable, "-c", PEAK, json.dumps([(str(path), rules) for path, rules in jobs])]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    made, file, gzipped_line, long = map(json.loads, result.stdout.splitlines())
    assert made[0] < 80 and made[1:] == [1_000_000, ""]
    assert file[0] < 80 and "bomb.gz: the whole file: a document longer than" in file[2]
    assert gzipped_line[0] < 80 and "bomb.gz: line 1: a document longer than" in gzipped_line[2]
    assert long[0] < 6 * 50 and long[1:] == [1, ""]

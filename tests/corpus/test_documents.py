"""Documents do not depend on how a file is cut into parts, and every damaged file ends in an error that names it."""

import csv
import gzip
import io
import json
import random
import re
import subprocess
import sys
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import discovery, documents, formats, streams
from packlm.corpus.formats import parquet
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import codec

ROOT = Path(__file__).resolve().parents[2]
MANY = settings(deadline=None, max_examples=80)


def read(source, part_bytes=1 << 25, **rules):
    """({name: text}, counts that are not zero) of a source cut into parts."""
    rules, counts = Corpus(**rules), Counter()
    parts, _ = formats.scan(source, rules, part_bytes)
    pairs = [pair for block in documents.read_all(parts, rules, "", counts) for pair in block]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs), dict(+counts)


def text(data, part_bytes=1 << 25, **rules):
    return read(Source("f", data=data, encoding=codec(rules.get("encoding", "utf-8"))), part_bytes, **rules)


def written(tmp_path, name, data, **rules):
    """What is read of a file of that name with these bytes."""
    (tmp_path / name).write_bytes(data)
    (source,) = discovery.find([str(tmp_path / name)], Corpus(**rules), "train", tmp_path)
    return read(source, **rules)


def refused(tmp_path, name, data, match, **rules):
    with pytest.raises(PacklmError, match=match):
        written(tmp_path, name, data, **rules)


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


RECORDS = st.lists(
    st.one_of(
        st.text().map(lambda value: json.dumps({"n": 1, "text": value}, ensure_ascii=False).encode()),
        st.text().map(lambda value: json.dumps({"text": value}).encode() + b" \r"),
        st.sampled_from([b"", b" ", b"{", b"[]", b"null", b'{"a": 1}', b'{"text": null}', b'{"text": 1.5}', b'"text"', b"\xff"]),
        st.sampled_from(
            [b'{"text": "a\xffb"}', b'{"text": "\\ud800"}', b'{"a\xff": "\\udc80", "text": "b"}', b'{"text": "\\ud83d\\ude00"}']
        ),
        st.sampled_from([b"[" * 100_000, b'{"text": ' + b"9" * 5000 + b"}"]),
    )
)


def one_record(line):
    """What a line of JSONL holds, bad bytes replaced; None where it cannot be read."""
    try:
        value = json.loads(line.decode(errors="replace"))["text"]
        value.encode()
        return value if isinstance(value, str) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


@MANY
@given(lines=RECORDS, part_bytes=st.integers(1, 60), block=st.integers(1, 99))
def test_jsonl(lines, part_bytes, block):
    source = Source("f", data=b"\n".join(lines), format="jsonl")
    rules = {"on_bad_text": "replace", "on_control": "keep"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        found, counts = read(source, part_bytes, **rules)
    each = {f"f:{number}": one_record(line) for number, line in enumerate(lines, 1) if line.strip()}
    assert found == {name: value for name, value in each.items() if value and value.strip()}
    assert counts.get("records skipped that could not be read", 0) == list(each.values()).count(None)
    assert (found, counts) == read(source, **rules)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", r"not JSON \(Expecting property name"),
        (b"[1]", "a list, not an object"),
        (b"7", "a number, not an object"),
        (b'{"body": "a"}', r"no field 'text' \(there are: 'body'; name one with --corpus.text_field\)"),
        (b'{"text": null}', "null in 'text', not a string"),
        (b'{"text": 3}', "a number in 'text', not a string"),
        (b'{"text": "a\\ud800"}', r"half a surrogate pair in 'text' \(\\ud800\)"),
        (b'{"text": "a\\udcff"}', r"half a surrogate pair in 'text' \(\\udcff\)"),
        (b"[" * 100_000, "JSON nested too deeply"),
    ],
)
def test_bad_records_of_jsonl_are_named(tmp_path, line, told):
    data = b'{"text": "One."}\n\n' + line + b'\n{"text": "Two."}'
    refused(tmp_path, "r.jsonl", data, rf"r\.jsonl: line 3: {told}.*on_bad_text skip")
    for policy in ("skip", "replace"):
        found = written(tmp_path, "r.jsonl", data, on_bad_text=policy)
        assert found == ({"r.jsonl:1": "One.", "r.jsonl:4": "Two."}, {"records skipped that could not be read": 1})


def test_fields_of_objects(tmp_path):
    lines = [{"data": {"text": "a", "n": {"body": "b"}}, "data.n": "c"}, {"data": {"text": "d", "n": {"body": "e"}}, "data.n": "f"}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    for field, expected in {"data.text": ["a", "d"], "data.n.body": ["b", "e"], "data.n": ["c", "f"]}.items():
        for name, content in {"r.jsonl": data, "r.json": json.dumps(lines).encode()}.items():
            assert list(written(tmp_path, name, content, text_field=field)[0].values()) == expected
        pq.write_table(pa.Table.from_pylist(lines), tmp_path / "r.parquet")
        found = read(Source("r", tmp_path / "r.parquet", format="parquet"), 1, text_field=field)
        assert list(found[0].values()) == expected
    refused(
        tmp_path,
        "r.jsonl",
        data,
        r"line 1: no field 'data\.body' \(there are: 'data\.text', 'data\.n\.body', 'data\.n';",
        text_field="data.body",
    )
    refused(tmp_path, "r.jsonl", data, r"line 1: an object in 'data', not a string", text_field="data")
    refused(tmp_path, "r.jsonl", b'{"data": "x"}', r"line 1: no field 'data\.text' \(there are: 'data';", text_field="data.text")
    with pytest.raises(PacklmError, match=r"no column 'data\.body'; there are 'data\.text', 'data\.n\.body', 'data\.n'"):
        read(Source("r", tmp_path / "r.parquet", format="parquet"), text_field="data.body")


UNREADABLE = {
    "gz": (gzip.compress(b"text\n" * 9), r"looks like gzip data; let its name end in \.gz"),
    "utf-16": ("text\nb\n".encode("utf-16"), r"not UTF-8 .*looks like UTF-16 \(--corpus.encoding utf-16\)"),
    "utf-16-le": ("text\nb\n".encode("utf-16-le"), r"looks like UTF-16 \(--corpus.encoding utf-16-le\)"),
}


@pytest.mark.parametrize("content", UNREADABLE)
@pytest.mark.parametrize("name", ["f.txt", "f.jsonl", "f.csv", "f.tsv", "f.json", "f"])
@pytest.mark.parametrize("format", ["auto", "named"])
def test_bytes_that_are_no_text_are_told_by_every_reader(tmp_path, name, content, format):
    data, message = UNREADABLE[content]
    named = {".txt": "text", ".tsv": "csv", "": "text"}.get(Path(name).suffix, Path(name).suffix[1:])
    refused(tmp_path, name, data, message, format="auto" if format == "auto" else named)


def test_bad_bytes_in_jsonl(tmp_path):
    data = b'{"text": "a"}\n{"text": "b\xff"}\n'
    refused(tmp_path, "r.jsonl", data, r"r\.jsonl: not UTF-8 at byte offset 25, line 2 \(byte ff\)")
    assert written(tmp_path, "r.jsonl", data, on_bad_text="skip")[1] == {"documents skipped that are not UTF-8": 1}
    refused(tmp_path, "r.jsonl", b'{"text": "a"}\n{"text": "\\u0000"}', r"control character U\+0000 at line 2")
    refused(tmp_path, "r.jsonl", b'{"text": "a"}\n{"text": " "}', r"r\.jsonl: line 2: a document of nothing", on_empty="error")


@MANY
@given(rows=st.lists(st.tuples(st.text(), st.text())), block=st.integers(1, 50), tab=st.booleans())
def test_csv(rows, block, tab):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter="\t" if tab else ",").writerows([("n", "text"), *rows])
    data = stream.getvalue().encode()
    source = Source("f.tsv" if tab else "f.csv", data=data, format="csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        found, counts = read(source, on_control="keep", quoting="csv")
    assert found == {f"{source.name}:{number}": value for number, (_, value) in enumerate(rows, 1) if value.strip()}
    assert (found, counts) == read(source, on_control="keep", quoting="csv")


def test_tsv_has_no_quotes_unless_they_are_asked_for(tmp_path, caplog):
    """Five rows are five documents; with the quoting of CSV they were three."""
    data = b'n\ttext\n1\t"Yes," he said.\n2\tAll "of" it\n3\t"No\n4\tand so on\n5\tthe end"\n'
    found = ['"Yes," he said.', 'All "of" it', '"No', "and so on", 'the end"']
    assert list(written(tmp_path, "q.tsv", data)[0].values()) == found
    assert list(written(tmp_path, "q.csv", data)[0].values()) == found  # separated by tabs, whatever its name
    assert list(written(tmp_path, "q.csv", data.replace(b"\t", b";"), quoting="none")[0].values()) == found
    assert not caplog.records
    quoted = b'n\ttext\n1\t"All of it"\n2\t"two\n3\tlines"\n'
    assert len(written(tmp_path, "q.tsv", quoted)[0]) == 3 and "1 fields begin and end with a quotation mark" in caplog.text
    assert list(written(tmp_path, "q.tsv", quoted, quoting="csv")[0].values()) == ["All of it", "two\n3\tlines"]
    assert "as if several rows had become one" in caplog.text
    assert list(written(tmp_path, "q.txt", b"n|text\n1|a,b\n", format="csv", delimiter="|")[0].values()) == ["a,b"]


def test_bad_rows_of_csv_are_named(tmp_path):
    def refuse(data, match, **rules):
        refused(tmp_path, "r.csv", data, rf"r\.csv: {match}", **rules)

    refuse(b"a,b\n1,2", r"no column 'text' in its first row; there are 'a', 'b'; name one with --corpus.text_field")
    refuse(b'a,text\n1,"two\nlines"\n3\n', r"row 2 \(line 4\): 1 fields where the first row has 2")
    refuse(b"a,text\n1,one, two\n", r"row 1 \(line 2\): 3 fields where")
    refuse(b'a,text\n1,"open\n2,b\n', r"row 1 \(line 2\): not CSV \(unexpected end of data\)")
    refuse(b'a,text\n1,"a"b\n', r"row 1 \(line 2\): not CSV")
    refuse(b"a,text\n1,b\n2,\xff\n", r"not UTF-8 at byte offset 13, line 3 \(byte ff\)")
    refuse(b"a,text\n1,b\n2,a\x00b\n", r"control character U\+0000 at row 2")
    refuse(
        b'a,text\n1,"' + b"open\n" * 30, r"row 1 \(line 2\): a document longer than corpus.max_document_bytes = 99", max_document_bytes=99
    )
    data = b'a,text\n1,one\n2,"a"b\n3\n\n4,\xff\n5,big ' + b"x" * 200_000 + b"\n"
    found, counts = written(tmp_path, "r.csv", data, on_bad_text="skip")
    assert found == {"r.csv:1": "one", "r.csv:5": "big " + "x" * 200_000}
    assert counts == {"records skipped that could not be read": 2, "documents skipped that are not UTF-8": 1}
    assert written(tmp_path, "r.csv", b"") == ({}, {})


@MANY
@given(values=st.lists(st.text() | st.none()), group=st.integers(1, 4), part_bytes=st.sampled_from([1, 100, 1 << 25]), large=st.booleans())
def test_parquet(tmp_path_factory, values, group, part_bytes, large):
    path = tmp_path_factory.mktemp("parquet") / "f.parquet"
    column = pa.array(values, pa.large_string() if large else pa.string())
    pq.write_table(pa.table({"n": range(len(values)), "text": column}), path, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_BATCH_ROWS", 3)
        patch.setattr(streams, "BLOCK", 20)
        found, counts = read(Source("f", path, format="parquet"), part_bytes, on_bad_text="skip", on_control="keep")
    assert found == {f"f:{number}": value for number, value in enumerate(values, 1) if value and value.strip()}
    assert counts.get("records skipped that could not be read", 0) == values.count(None)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), "dictionary"]
)
def test_all_types_of_text_in_parquet(tmp_path, kind):
    values = ["One.", None, "Zwölf, and so on: too long to be stored within a view.", "One."]
    column = pa.array(values).dictionary_encode() if kind == "dictionary" else pa.array(values, kind)
    pq.write_table(pa.table({"n": range(4), "text": column}), tmp_path / "text", row_group_size=3)
    fields = ["text"]
    if kind != "dictionary":  # pyarrow reads none in structures
        pq.write_table(pa.table({"deep": pa.StructArray.from_arrays([column], ["text"])}), tmp_path / "deep.text")
        fields.append("deep.text")
    for field in fields:
        found, counts = read(Source("f", tmp_path / field, format="parquet"), on_bad_text="skip", text_field=field)
        assert found == {"f:1": values[0], "f:3": values[2], "f:4": values[3]} and counts == {"records skipped that could not be read": 1}


def test_bad_rows_of_parquet_are_named(tmp_path):
    path, source = tmp_path / "p.parquet", Source("p", tmp_path / "p.parquet", format="parquet")
    pq.write_table(pa.table({"text": ["a", None, "b"]}), path)
    with pytest.raises(PacklmError, match=r"p\.parquet: row 2: null in column 'text'"):
        read(source)
    broken = pa.array([b"a", b"\xe2\x80", b"\xa8b"]).view(pa.string())  # halves of a character, in two rows
    pq.write_table(pa.table({"text": broken}), path)
    with pytest.raises(PacklmError, match=r"p\.parquet: not UTF-8 at row 2 \(byte e2 80\)"):
        read(source)
    assert read(source, on_bad_text="replace")[0] == {"p:1": "a", "p:2": "�", "p:3": "�b"}
    with pytest.raises(PacklmError, match=r"p\.parquet: row 1: a document longer"):
        pq.write_table(pa.table({"text": ["abc"]}), path)
        read(source, max_document_bytes=2)
    pq.write_table(pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()}), path)
    assert read(source)[0] == {"p:1": "a", "p:2": "b", "p:3": "a"}
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(1000)]}), path, compression="zstd", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[200:203] = bytes(3)
    path.write_bytes(data)
    with pytest.raises(PacklmError, match=r"p\.parquet: damaged after row 0"):
        read(source)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(streams, "BLOCK", 7)
    pack = PACKED[suffix]
    assert written(tmp_path, f"a.txt.{suffix}", pack(b"\xef\xbb\xbfone\n") + pack("zwölf".encode()))[0] == {f"a.txt.{suffix}": "one\nzwölf"}
    data = b'{"text": "a"}\n{"text": "b"}\n'
    assert written(tmp_path, f"a.jsonl.{suffix}", pack(data))[0] == {f"a.jsonl.{suffix}:1": "a", f"a.jsonl.{suffix}:2": "b"}
    assert written(tmp_path, f"a.tsv.{suffix}", pack(b"n\ttext\n1\ta, b\n"))[0] == {f"a.tsv.{suffix}:1": "a, b"}
    assert written(tmp_path, f"u.txt.{suffix}", pack("é\nß".encode("utf-16")), encoding="utf-16", document="line")[0] == {
        f"u.txt.{suffix}:1": "é\n",
        f"u.txt.{suffix}:2": "ß",
    }
    assert written(tmp_path, f"e.txt.{suffix}", pack(b""))[1] == {"empty documents skipped": 1}


@pytest.mark.parametrize("suffix", PACKED)
def test_damaged_compressed_files(tmp_path, suffix):
    whole = PACKED[suffix](b"".join(b"%d is a line\n" % number for number in range(300)))
    for kept in [*range(40), len(whole) // 2, *range(len(whole) - 9, len(whole))]:
        refused(
            tmp_path, f"d.{suffix}", whole[:kept], rf"d\.{suffix}: damaged or truncated: .*bytes of text could be read", document="line"
        )
        if kept:
            refused(tmp_path, f"d.{suffix}", whole + whole[:kept], rf"d\.{suffix}: damaged or truncated", document="line")
    for name, bad in {
        "garbage": whole + b"more",
        "plain": b"text that nobody compressed",
    }.items():
        refused(tmp_path, f"{name}.{suffix}", bad, rf"{name}\.{suffix}: damaged or truncated", document="line")


@pytest.mark.parametrize("suffix", PACKED)
def test_the_bytes_of_a_damaged_file_that_are_good_are_counted_exactly(tmp_path, monkeypatch, suffix):
    """However large a block is; of a truncated file what its decoder gives, before other bytes all."""
    text = random.Random(1).randbytes(90_000).hex().encode()
    whole = PACKED[suffix](text)
    for kept in (len(whole) // 3, len(whole) - 9):
        data = whole[:kept]
        good = zlib.decompressobj(31).decompress(data) if suffix == "gz" else streams.zstd.ZstdDecompressor().decompress(data)
        for block in (1 << 22, 1000):
            monkeypatch.setattr(streams, "BLOCK", block)
            refused(tmp_path, f"d.{suffix}", data, rf" {len(good):,} bytes of text could be read before; replace", document="line")
    refused(tmp_path, f"d.{suffix}", whole + b"more", rf" {len(text):,} bytes of text could be read before; replace", document="line")
    if suffix == "gz":  # of zstd, a block of 128 KiB is good or it is not
        data, good, decoder = whole[: len(whole) // 2] + random.Random(2).randbytes(9999), 0, zlib.decompressobj(31)
        with suppress(zlib.error):
            for byte in data:
                good += len(decoder.decompress(bytes((byte,))))
        assert good % 100
        told = rf"Error -3 .* ({good:,}|{good - 1:,}) bytes of text could be read before"  # the last may come with the error
        refused(tmp_path, "d.gz", data, told, document="line")


def test_zstd_with_a_large_window(tmp_path):
    """`zstd --long=31` writes windows that a decoder refuses unless it is told to hold them."""
    options = {streams.zstd.CompressionParameter.window_log: 31, streams.zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = streams.zstd.ZstdCompressor(options=options)
    data = compressor.compress(b"One line.\n" * 1000) + compressor.flush()  # of unknown size: the frame states its window
    with pytest.raises(streams.zstd.ZstdError, match="too much memory"):
        streams.zstd.ZstdDecompressor().decompress(data)
    found, _ = written(tmp_path, "l.txt.zst", data, document="line")
    assert len(found) == 1000 and set(found.values()) == {"One line.\n"}


def test_a_checksum_that_is_wrong(tmp_path):
    data = bytearray(gzip.compress(b"text"))
    data[-8] ^= 1
    refused(tmp_path, "c.gz", bytes(data), r"c\.gz: damaged or truncated: CRC check failed")
    import xxhash

    # A frame of one raw block with a checksum, as RFC 8878 has it; pyarrow itself writes none.
    frame = b"\x28\xb5\x2f\xfd\x24\x04" + (4 << 3 | 1).to_bytes(3, "little") + b"text" + xxhash.xxh64(b"text").digest()[:-5:-1]
    assert written(tmp_path, "c.zst", frame)[0] == {"c.zst": "text"}
    refused(tmp_path, "c.zst", frame.replace(b"text", b"next"), r"c\.zst: damaged or truncated")


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

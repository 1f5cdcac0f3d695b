"""Documents that are records: JSONL, JSON, CSV, TSV and Parquet, however they are cut; bad ones are named."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.corpus import streams
from packlm.corpus.formats import parquet
from packlm.corpus.sources import Source
from tests.corpus.reading import MANY, read, refused, written

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

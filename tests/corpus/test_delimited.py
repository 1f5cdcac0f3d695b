"""Rows are those of the module csv, whatever the delimiter and the quoting; what looks wrong is told."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.corpus import delimited
from packlm.corpus.delimited import Dialect, QuoteCheck

FIELDS = st.lists(
    st.lists(st.sampled_from(["a", "b c", '"', '""', ",", ";", "\t", "\n", "\r\n", "é", " "]).map(str), max_size=4).map("".join)
)


def rows(text, dialect, **options):
    return list(delimited.rows(io.StringIO(text, newline=""), dialect, **options))


@given(table=st.lists(FIELDS), delimiter=st.sampled_from(",;\t|"))
def test_what_the_module_csv_writes_is_read_back(table, delimiter):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows(table)
    found = rows(stream.getvalue(), Dialect(delimiter, quoted=True))
    assert [row.fields for row in found] == [fields for fields in table if fields]
    assert not any(row.problem for row in found)


@given(text=st.lists(st.sampled_from(["a", '"', "\t", "\n", " ", "\r\n", ","])).map("".join), delimiter=st.sampled_from(",\t"))
def test_without_quoting_a_line_is_a_row(text, delimiter):
    found = rows(text, Dialect(delimiter, quoted=False))
    lines = [(number, line) for number, line in enumerate(io.StringIO(text), 1) if line.strip("\r\n")]
    assert [(row.line, row.fields) for row in found] == [(number, line.rstrip("\r\n").split(delimiter)) for number, line in lines]


@pytest.mark.parametrize(
    ("name", "first", "settings", "expected"),
    [
        ("a.csv", "n,text", {}, Dialect(",", True)),
        ("a.csv", "text", {}, Dialect(",", True)),
        ("a.csv", "n;text", {}, Dialect(";", True)),
        ("a.csv", "n\ttext", {}, Dialect("\t", False)),
        ("a.TSV.gz", "a,b,c", {}, Dialect("\t", False)),
        ("a.tab", "text", {}, Dialect("\t", False)),
        ("-", "item\ttext", {}, Dialect("\t", False)),
        ("a.tsv", "text", {"quoting": "csv"}, Dialect("\t", True)),
        ("a.csv", "a,text", {"quoting": "none"}, Dialect(",", False)),
        ("a.csv", "a,text", {"delimiter": "|"}, Dialect("|", True)),
        ("a.tsv", "a,text", {"delimiter": ","}, Dialect(",", True)),
    ],
)
def test_the_dialect_of_a_file(name, first, settings, expected):
    assert delimited.dialect(name, first, **settings) == expected


def test_bad_rows_are_told_with_their_lines_and_the_next_ones_are_read():
    found = rows('a,b\n\n"x"y,1\nc,d\n"e\nf",2\n"open', Dialect(",", True))
    assert [(row.line, row.fields, bool(row.problem)) for row in found] == [
        (1, ["a", "b"], False), (3, [], True), (4, ["c", "d"], False), (5, ["e\nf", "2"], False), (7, [], True),
    ]  # fmt: skip
    with pytest.raises(delimited.FieldTooLong) as caught:
        rows('a\n"' + "x\n" * 99, Dialect(",", True), limit=50)
    assert caught.value.line == 2 and csv.field_size_limit() == 131_072


def test_marks_that_look_misunderstood_are_told():
    def warning(text, dialect):
        check = QuoteCheck(dialect)
        for row in rows(text, dialect):
            check.add(row)
        return check.warning

    quotes = 'n\ttext\n1\t"Yes," he said.\n2\t"all of it"\n3\t"No\n4\tand so on\n5\tthe end"\n'
    assert "1 fields begin and end with a quotation mark" in warning(quotes, Dialect("\t", False))
    swallowed = warning(quotes.replace('"Yes,"', "Yes,"), Dialect("\t", True))
    assert "(the first at line 4)" in swallowed and "--corpus.quoting none" in swallowed
    assert not warning('n,text\n1,"two\nlines, and commas"\n', Dialect(",", True))

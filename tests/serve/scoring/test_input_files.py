"""What the commands read: a file is what its name and first bytes say, or it is refused; no field of it is lost on the way out."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.engine import Engine
from serve import records
from serve.generate.prompts import read_requests
from serve.records import RecordFile
from serve.score.files import output_names
from tests.serve.test_main import (
    Command,
    command,  # noqa: F401
)

RECORDS: list[dict[str, Any]] = [
    {"item": "a", "text": "the cat", "sentence": "S1", "word": "w", "error": "none", "condition": "x", "input_word": "other"},
    {"item": "a", "text": 'a "dog", often', "sentence": "S2", "word": "tab\tand \\", "error": "", "condition": "", "input_word": "y"},
]
"""Fields of strings, some with the names of columns of the output."""
NESTED: list[dict[str, Any]] = [{"text": "the cat", "tags": ["a", {"b": None}], "n": 1.5}, {"text": "a dog", "late": True, "n": None}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes records in the format that the name says."""
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(value.replace("\t", " ") for value in row.values()) for row in rows)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def table(text: str) -> list[dict[str, str]]:
    """The rows of a TSV that we wrote, with what was escaped."""
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [{name: value.replace("\\t", "\t").replace("\\\\", "\\") for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("out", ["out.tsv", "out.jsonl"])
@pytest.mark.parametrize("name", ["in.tsv", "in.csv", "in.jsonl", "in.ndjson", "in.json"])
@pytest.mark.parametrize("verb", ["score", "pairs"])
def test_every_field_survives_whatever_the_formats(
    verb: str, name: str, out: str, command: Command, made: Callable[[str], Config], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    rows = [row | {"bad": "dog the"} for row in RECORDS]
    options = ["--rows", "sentence"] if verb == "score" else ["--good", "text", "--bad", "bad"]
    model = made("word").run.dir / "model"
    status, _, err = command(verb, "--model", model, "--input", write(tmp_path / name, rows), "--out", out, *options)
    assert status == 0, err
    text = (tmp_path / out).read_text(encoding="utf-8")
    results = [json.loads(line) for line in text.splitlines()] if out.endswith("jsonl") else table(text)
    for row, result in zip(rows, results, strict=True):
        for field, value in row.items():
            expected = value.replace("\t", " ") if name == "in.tsv" else value
            names = [field, f"input_{field}", f"input_input_{field}", {"text": "good"}.get(field, field)]
            assert expected in [result[name] for name in names if name in result]
        assert ("error" in result) == out.endswith("tsv")  # in JSON it is the sign of a record that could not be read
        assert str(result["sentence" if verb == "score" else "pair"]) in ("1", "2")


def test_fields_that_only_some_records_have_are_columns(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    write(tmp_path / "in.jsonl", NESTED)
    status, out, _ = command("score", "--model", made("word").run.dir / "model", "--input", "in.jsonl", "--rows", "sentence")
    assert status == 0
    assert [{name: row[name] for name in ("tags", "n", "late")} for row in table(out)] == [
        {"tags": '["a", {"b": null}]', "n": "1.5", "late": ""},
        {"tags": "", "n": "null", "late": "true"},
    ]


def test_names_that_are_taken_get_one_that_is_free() -> None:
    assert output_names(["a", "input_b", "b", "input_input_b"], ["b", "error"]) == {
        "a": "a", "input_b": "input_b", "b": "input_input_input_b", "input_input_b": "input_input_b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b'{"text": "the cat"}\n{"text": "a dog"}\n', "looks like JSON Lines.*read it so with --score.format jsonl"),
        ("a.tok", b"item\tzone\tword\n1\t1\tIf\n1\t2\tyou\n", "looks like columns separated by tabs.*read it so with --score.format csv"),
        ("a.html", b"<p>The cat</p>\n", "looks like HTML"),
        ("a.gz", b"\x1f\x8b\x08\0\0\0\0", "looks like gzip data; decompress"),
        ("a.txt", "\ufeffthe cat\n".encode("utf-16-le"), "looks like UTF-16; convert it to UTF-8"),
        ("a.parquet", b"PAR1" + b"\0" * 20, "Parquet is not read here"),
        ("a.json", b'{"text": "the cat",', "not JSON: "),
        ("a.json", b'{"items": [{"item_number": "1"}]}', "items.0.item_number: .*; a SyntaxGym suite has"),
    ],
)
def test_what_is_no_file_of_sentences_is_refused_with_the_remedy(
    name: str, data: bytes, message: str, command: Command, made: Callable[[str], Config], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(data)
    status, out, err = command("score", "--model", made("word").run.dir / "model", "--input", name)
    assert (status, out) == (2, "")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)


def test_quotation_marks_of_csv_are_those_of_the_csv_module() -> None:
    generator = np.random.default_rng(3)
    alphabet = list('ab ",;\t\n"\'é')
    for _ in range(40):
        rows = [["".join(generator.choice(alphabet, generator.integers(1, 9))) for _ in range(3)] for _ in range(6)]
        stream = io.StringIO(newline="")
        csv.writer(stream).writerows([["text", "b", "c"], *rows])
        read = list(RecordFile(io.BytesIO(stream.getvalue().encode()), "a.csv", delimiter=","))
        expected = list(csv.DictReader(io.StringIO(stream.getvalue().replace("\r\n", "\n"), newline="")))
        assert [record.fields for record in read] == expected and not any(record.error for record in read)


def test_a_line_that_is_no_text_spoils_its_own_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'text,n\nthe cat,1\n\xff\xfe,2\n"a\n\xff",3\n"a dog\noften",4\n'
    read = list(RecordFile(io.BytesIO(data), "a.csv"))
    assert [(record.number, record.fields.get("n"), record.error) for record in read] == [
        (1, "1", ""), (2, None, "not UTF-8 at byte 1"), (3, None, "not UTF-8 at byte 1"), (5, "4", ""),
    ]  # fmt: skip
    monkeypatch.setattr(records, "MAX_BYTES", 30)
    (first, rest) = RecordFile(io.BytesIO(b'text\nthe cat\n"never closed\n' + b"a dog\n" * 20), "a.csv")
    assert first.fields == {"text": "the cat"} and "quotation mark never closed" in rest.error


def test_prompts_come_from_any_of_the_formats(tmp_path: Path) -> None:
    rows = [{"prompt": "the cat", "id": "1", "temperature": "0.5"}, {"prompt": "a, dog", "id": "2", "temperature": ""}]
    for name in ("p.csv", "p.tsv", "p.jsonl", "p.json", "p.ndjson"):
        with write(tmp_path / name, rows).open("rb") as stream:
            requests = read_requests(stream, name)
        assert [(request.prompt, request.id) for request in requests] == [("the cat", "1"), ("a, dog", "2")]
        assert requests[0].settings == {"temperature": "0.5"} and not requests[0].error
    with pytest.raises(RequestError, match="no column 'prompt'; found text"):
        read_requests(io.BytesIO(b"text,n\na,1\n"), "p.csv")
    with tempfile.TemporaryFile() as stream, pytest.raises(RequestError, match="gzip"):
        stream.write(b"\x1f\x8b\x08")
        stream.seek(0)
        read_requests(stream, "p.jsonl.gz")


def test_the_settings_of_a_prompt_are_in_its_record(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    import pyarrow.parquet as pq

    write(tmp_path / "p.jsonl", [{"prompt": "the", "seed": 7, "max_tokens": 2}, {"prompt": "a"}])
    for out in ("o.jsonl", "o.parquet"):
        assert command("generate", "--model", made("bpe").run.dir / "model", "--prompts", "p.jsonl", "--out", out)[0] == 0
    first, second = map(json.loads, (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["settings"] == {"seed": 7, "max_tokens": 2} and "settings" not in second
    assert pq.read_table(tmp_path / "o.parquet")["settings"].to_pylist() == ['{"seed": 7, "max_tokens": 2}', None]


SUITE: dict[str, Any] = {
    "meta": {"name": "agreement", "metric": "sum"},
    "region_meta": {"1": "subject", "2": "verb", "3": "rest"},
    "predictions": [{"type": "formula", "formula": "(2;%mismatch%) > (2;%match%)"}],
    "items": [
        {
            "item_number": number,
            "conditions": [
                {
                    "condition_name": name,
                    "regions": [{"region_number": region, "content": content} for region, content in enumerate((subject, verb, rest), 1)],
                }
                for name, verb in (("match", "sees"), ("mismatch", "see"))
            ],
        }
        for number, subject, rest in ((1, "the small cat", "a dog ."), (2, "a tree", ""))
    ],
}


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_regions_of_a_suite_have_the_sum_of_their_words(
    kind: str, command: Command, made: Callable[[str], Config], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "suite.json").write_text(json.dumps(SUITE), encoding="utf-8")
    engine = Engine.load(made(kind).run.dir / "model")
    status, out, err = command("score", "--model", made(kind).run.dir / "model", "--input", "suite.json")
    assert status == 0, err
    rows = table(out)
    assert len(rows) == 12 and {row["suite"] for row in rows} == {"agreement"}
    for item in SUITE["items"]:
        for condition in item["conditions"]:
            contents = [region["content"] for region in condition["regions"]]
            (score,) = engine.score([" ".join(filter(None, contents))])
            surprisals = iter(score.word_surprisals.tolist())
            own = [row for row in rows if (row["item"], row["condition"]) == (str(item["item_number"]), condition["condition_name"])]
            assert [(row["region"], row["name"], row["content"]) for row in own] == [
                (str(number), SUITE["region_meta"][str(number)], content) for number, content in enumerate(contents, 1)
            ]
            for row, content in zip(own, contents, strict=True):
                assert float(row["surprisal"]) == pytest.approx(sum(next(surprisals) for _ in content.split()), abs=1e-5)
            assert sum(float(row["surprisal"]) for row in own) + score.end_surprisal == pytest.approx(sum(score.surprisals), abs=1e-4)
    status, out, _ = command("score", "--model", made(kind).run.dir / "model", "--input", "suite.json", "--out", "o.jsonl")
    record = json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert (record["item"], record["condition"]) == (1, "mismatch")
    assert [region["surprisal"] for region in record["regions"]] == pytest.approx([float(row["surprisal"]) for row in rows[3:6]], abs=1e-5)
    assert command("score", "--model", made(kind).run.dir / "model", "--input", "suite.json", "--rows", "word")[1].count("\n") == 21

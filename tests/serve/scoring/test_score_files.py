"""Files of sentences and of scores: a result for every line, other columns passed through, the same bytes from one process or two."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from serve.records import RecordFile
from serve.score import files as score_files
from serve.score import heat_map
from serve.score.files import COLUMNS, ScoreWriter
from serve.score.sentence_files import Reader, Row
from tests.scoring.test_sentences import LINES

ROOT = Path(__file__).resolve().parents[3]


def rows(data: bytes, name: str = "-", kind: str = "auto", documents: bool = False, text_field: str = "text") -> list[Row]:
    return list(Reader(RecordFile(io.BytesIO(data), name, kind, setting="--score.format"), text_field).rows(documents))


def test_lines_are_sentences_and_empty_ones_end_documents() -> None:
    data = b"\xef\xbb\xbfone\r\ntwo\n\n \nthree"
    alone = [(row.number, row.text, row.item) for row in rows(data)]
    assert alone == [(1, "one", 1), (2, "two", 2), (3, "", 3), (4, " ", 4), (5, "three", 5)]
    together = [(row.number, row.text, row.starts_document, row.item) for row in rows(data, documents=True)]
    assert together == [(1, "one", True, 1), (2, "two", False, 1), (5, "three", True, 2)]


def test_a_table_keeps_its_columns_and_items_are_documents() -> None:
    data = b"item\ttext\tcondition\na\tone\tx\na\ttwo\ty\nb\tthree\tx\na\tfour\t\n"
    results = rows(data, "f.tsv", documents=True)
    assert [row.starts_document for row in results] == [True, False, True, True]
    assert [row.extra for row in results] == [{"condition": value} for value in ("x", "y", "x", "")]
    assert rows(b"one\ttwo\na\tb\n", kind="tsv", text_field="two")[0].text == "b"
    assert [row.starts_document for row in rows(b"text\na\nb\n", "f.tsv", documents=True)] == [True, True]


def test_lines_that_are_not_sentences_have_an_error() -> None:
    data = b'{"text": "a"}\n{"text": 3}\nnonsense\n["a"]\n{"text": "b", "item": 1, "more": [1]}\n{"text": "\\ud800"}\n{"text": NaN}\n\xff\n'
    results = rows(data)
    assert [bool(row.error) for row in results] == [False, True, True, True, False, True, True, True]
    assert 'a string "text"' in results[1].error
    assert "not JSON" in results[2].error and "not UTF-8 at byte 1" in results[7].error
    assert results[4].extra == {"more": [1]} and results[4].item == 1
    table = rows(b"text\tmore\na\tb\na\na\tb\tc\n", "f.tsv")
    assert [row.error for row in table] == ["", "1 columns, the header has 2", "3 columns, the header has 2"]
    assert rows(b"a\nb\0c\n")[1].error == "holds a NUL character"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"PK\x03\x04\0\0\0", "f.zip", "f.zip: not a text file: looks like a zip archive"),
        (b"a\0b\n", "f.txt", "f.txt: not a text file: byte 2 is NUL"),
        (b"sentence\tcondition\na\tb\n", "f.tsv", "no column 'text'.*sentence, condition.*score.text_field"),
        (b"text\ttext\na\tb\n", "f.tsv", "one twice"),
        (b"", "f.tsv", "no column 'text'.*found none"),
    ],
)
def test_a_file_without_sentences_is_refused(data: bytes, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        rows(data, name)


@pytest.mark.parametrize("kind", [kind for kind in COLUMNS if kind != "region"])
def test_tables_are_tidy_and_hold_what_was_scored(engine: Engine, kind: str) -> None:
    scores = engine.score(LINES)
    input_rows = [Row(number, line, item=f"i{number}", extra={"word": "w\t", "c": number}) for number, line in enumerate(LINES, 1)]
    input_rows[1:1] = [Row(2, error="bad")]
    results = score_files.score_rows(input_rows, lambda sentences: iter(engine.score([sentence.text for sentence in sentences])))
    writer = ScoreWriter("tsv", kind, ["word", "c"])
    text = writer.header + "".join(line for row, score in results for line in writer.lines(row, score))
    table = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    counts = {"word": sum(len(score.words) for score in scores), "token": sum(len(score.tokens) for score in scores)}
    assert len(table) == counts.get(kind, len(scores))
    assert {row["input_word" if kind == "word" else "word"] for row in table} == {"w\\t"}
    for number, score in enumerate(scores, 1):
        table_rows = [row for row in table if row["sentence"] == str(number)]
        assert {row["item"] for row in table_rows} == ({f"i{number}"} if table_rows else set())
        if kind == "word":
            assert [row["word"] for row in table_rows] == score.words
            assert [int(row["position"]) for row in table_rows] == list(range(1, len(table_rows) + 1))
            total = sum(float(row["surprisal"]) for row in table_rows) + score.end_surprisal
            assert total == pytest.approx(sum(score.surprisals), abs=1e-4)
        elif kind == "token":
            assert sum(float(row["log_prob"]) for row in table_rows) == pytest.approx(score.log_prob, abs=1e-4)
        else:
            assert float(table_rows[0]["log_prob"]) == pytest.approx(score.log_prob, abs=1e-6)
            assert table_rows[0]["text"] == score_files.escape(score.text)


def test_every_line_has_a_record_with_scores_or_an_error(engine: Engine) -> None:
    input_rows = [Row(1, error="not JSON"), Row(2, "the cat", item=7, extra={"words": 3, "c": [1]}), Row(3, error="not UTF-8")]
    results = score_files.score_rows(input_rows, lambda sentences: iter(engine.score([sentence.text for sentence in sentences])))
    writer = ScoreWriter("jsonl", "word", [])
    records = [json.loads(line) for row, score in results for line in writer.lines(row, score)]
    assert records[0] == {"sentence": 1, "error": "not JSON"} and records[2]["error"] == "not UTF-8"
    assert records[1]["words"] == ["the", "cat"] and records[1]["input_words"] == 3 and records[1]["c"] == [1] and records[1]["item"] == 7


def test_ranks_share_blocks_that_end_with_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_files, "CHUNK_SENTENCES", 3)
    input_rows = [Row(number, str(number), starts_document=number in (1, 2, 8, 9, 13)) for number in range(1, 15)]
    shares = [list(score_files.rank_share(input_rows, Ranks(rank, 2, torch.device("cpu")))) for rank in range(2)]
    assert sorted(row.number for share in shares for row in share) == list(range(1, 15))
    assert [row.number for row in shares[0]] == [1, 2, 3, 4, 5, 6, 7, 13, 14]
    assert all(share[0].starts_document for share in shares)
    # A line with an error neither counts as a sentence nor ends a document.
    input_rows[8:8] = [Row(16, error="bad"), Row(17, error="bad")]
    input_rows[3:3] = [Row(15, error="bad")]
    share = score_files.rank_share(input_rows, Ranks(0, 2, torch.device("cpu")))
    assert [row.number for row in share] == [1, 2, 3, 15, 4, 5, 6, 7, 13, 14]


@pytest.mark.long
def test_two_processes_of_torchrun_write_the_bytes_of_one(made: Callable[[str], Config], tmp_path: Path) -> None:
    model, lines = made("word").run.dir / "model", [line for line in LINES if line.strip()]
    (tmp_path / "in.txt").write_text("\n".join(lines[number % 5] for number in range(9000)), encoding="utf-8")
    arguments = [str(ROOT / "serve"), "score", "--model", str(model), "--input", "in.txt", "--rows", "sentence", "--out"]
    for launcher, out in (([], "one.tsv"), (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], "two.tsv")):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *launcher, *arguments, out], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one = (tmp_path / "one.tsv").read_text(encoding="utf-8")
    assert len(one.splitlines()) == 9001 and (tmp_path / "two.tsv").read_text(encoding="utf-8") == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "one.tsv", "two.tsv"]


def test_tokens_are_escaped_so_that_they_can_be_told_apart() -> None:
    assert [score_files.escape(token) for token in ("\t", "\\t", "\n", "\r", " a")] == ["\\t", "\\\\t", "\\n", "\\r", " a"]


def test_the_heat_map_shows_every_word_on_its_color(made: Callable[[str], Config], tmp_path: Path) -> None:
    engine = Engine.load(made("word").run.dir / "model")
    scores = engine.score(["the <b> zebra", "a cat"])
    stream = io.StringIO()
    heat_map.write(scores, stream, "A & B", "alone.", omitted=3)
    page = stream.getvalue()
    assert "A &amp; B" in page and "&lt;b&gt;</b>" in page and "3 further sentences" in page
    assert page.count('title="surprisal') == 5 and page.count('class="unknown"') == 2
    assert f"surprisal {scores[0].word_surprisals[0]:.2f}" in page
    assert heat_map.color(-1.0) == heat_map.color(0.0) and heat_map.color(99.0) == heat_map.color(heat_map.FULL)

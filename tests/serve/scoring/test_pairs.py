"""Minimal pairs: a result for every line, columns passed through, and a summary equal to plain counting."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring.sentences import SentenceScore
from serve.pairs import pairs
from serve.pairs import summary as pairs_summary
from serve.pairs.pairs import Pair, PairReader, PairRow, PairWriter
from serve.pairs.summary import PairCounts, wilson
from serve.records import RecordFile
from tests.serve.test_main import (
    Command,
    command,  # noqa: F401
)

BLIMP = b"""{"sentence_good": "the cat sees a dog", "sentence_bad": "cat the sees dog a", "field": "syntax", "UID": "order", "pair_id": 0}
nonsense
{"sentence_good": "the cat", "sentence_bad": ""}
{"sentence_good": "the cat"}
{"sentence_good": "the zebra eats", "sentence_bad": "the okapi eats", "field": "syntax", "UID": "unknown", "pair": 7}
{"sentence_good": "a dog often", "sentence_bad": "the tree quietly under", "field": "syntax", "UID": "order"}
"""


def reader(data: bytes, name: str = "f.tsv", kind: str = "auto", group: str = "", good: str = "", bad: str = "") -> PairReader:
    return PairReader(RecordFile(io.BytesIO(data), name, kind, "csv", "--pairs.format"), good, bad, group)


def test_lines_that_are_not_pairs_have_an_error() -> None:
    rows = list(reader(BLIMP, "f.jsonl", group="UID").rows())
    assert [bool(row.error) for row in rows] == [False, True, True, True, False, False]
    assert "not JSON" in rows[1].error and 'a string "sentence_bad"' in rows[3].error
    assert rows[2].error == 'no "UID" to group by' and list(reader(BLIMP, "f.jsonl").rows())[2].error == "an empty sentence in sentence_bad"
    table = list(reader(b"good\tbad\tn\na\tb\t1\na\n\xff\tb\t1\n \tb\t1\n").rows())
    assert [row.error for row in table] == ["", "1 columns, the header has 3", "not UTF-8 at byte 1", "an empty sentence in good"]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"good\tworse\n", {}, "no column 'bad'; found good, worse; pairs.bad names it"),
        (b"better\tbad\n", {}, "no column 'good'.*pairs.good names the text column"),
        (b"good\tbad\n", {"group": "UID"}, "no column 'UID'; .*pairs.group"),
        (b"PK\x03\x04\0", {}, "not a text file: looks like a zip archive"),
        (b"", {}, "no column 'good'"),
    ],
)
def test_a_file_that_holds_no_pairs_at_all_is_refused(data: bytes, options: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        reader(data, **options)


def pair_of(good: float, bad: float, good_tokens: int = 2, bad_tokens: int = 2, unknown: bool = False) -> Pair:
    """A pair with these log P and numbers of tokens."""

    def score(total: float, tokens: int, name: str) -> SentenceScore:
        none = np.zeros(0)
        log_probs = np.full(tokens, total / tokens)
        return SentenceScore("", [name] * tokens, log_probs, log_probs, ["w"], none, none, none, np.array([unknown]), 0.0)

    return Pair(score(good, good_tokens, "good"), score(bad, bad_tokens, "bad"))


def test_the_summary_counts_and_a_tie_is_wrong() -> None:
    counts = PairCounts()
    pairs_ = [pair_of(-1, -2), pair_of(-3, -2), pair_of(-2, -2), pair_of(-4, -5, 2, 8, True), pair_of(-9, -2)]
    rows = [(PairRow(number, extra={"g": "xxxyy"[number]}), pair) for number, pair in enumerate(pairs_)]
    list(counts.count([*rows, (PairRow(6, error="bad"), None)], "g"))
    summary = counts.summary()
    assert [summary[key] for key in ("pairs", "accuracy", "ties", "lines_that_are_no_pairs")] == [5, 0.4, 1, 1]
    assert summary["accuracy_per_token"] == 0.2 and summary["pairs_with_unknown_words"] == 1
    assert summary["mean_difference"] == pytest.approx((1 - 1 + 0 + 1 - 7) / 5)
    assert {name: group["accuracy"] for name, group in summary["groups"].items()} == {"x": pytest.approx(1 / 3, abs=1e-6), "y": 0.5}
    lines = pairs_summary.table(summary).splitlines()
    assert lines[1].split()[:4] == ["all", "5", "40.0", "%"] and len(lines) == 6


def test_pairs_without_unknown_words_have_an_accuracy_of_their_own() -> None:
    """Right or not, tied or not, with unknown words or not: counted by hand."""
    counts = PairCounts()
    scored = [(-1, -2, False), (-2, -1, False), (-1, -3, False), (-2, -2, True), (-2, -2, True), (-3, -2, True), (-1, -2, True)]
    for number, (good, bad, unknown) in enumerate(scored):
        counts.add("x" if number < 5 else "y", pair_of(good, bad, unknown=unknown))
    summary = counts.summary()
    known = summary["without_unknown_words"]
    assert (summary["pairs"], summary["ties"], summary["pairs_with_unknown_words"]) == (7, 2, 4)
    assert (known["pairs"], known["accuracy"]) == (3, pytest.approx(2 / 3, abs=1e-6))
    assert known["accuracy_interval"] == pytest.approx(wilson(2, 3), abs=1e-6)
    assert summary["groups"]["y"]["without_unknown_words"] == {"pairs": 0}
    warning = pairs_summary.warning(summary)
    assert "4 of 7 pairs have a word that the model does not know" in warning and "accuracy of the other 3: 66.7 %" in warning
    assert [line.split()[-1] for line in pairs_summary.table(summary).splitlines()[2:4]] == ["%", "-"]
    assert pairs_summary.warning({"pairs": 7, "pairs_with_unknown_words": 0}) == ""


def test_a_folder_of_files_is_read_at_once(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    model = made("word").run.dir / "model"
    (tmp_path / "blimp").mkdir()
    pair = {"sentence_good": "the cat sees a dog", "sentence_bad": "cat the sees dog a", "UID": "order"}
    (tmp_path / "blimp" / "a.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(pair | {"only_here": 1}) + "\n", encoding="utf-8")
    (tmp_path / "blimp" / "b.jsonl").write_text("{\n" + json.dumps(pair | {"sentence_bad": "a okapi"}) + "\n", encoding="utf-8")
    (tmp_path / "blimp" / ".hidden").write_text("no", encoding="utf-8")
    (tmp_path / "c.tsv").write_text("good\tbad\nthe cat\tcat the\n", encoding="utf-8")
    status, out, err = command(
        "pairs", "--model", model, "--input", "blimp", "c.tsv", "--out", "o.tsv", "--summary", "s.json"
    )  # fmt: skip
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert status == 0 and {name: group["pairs"] for name, group in summary["groups"].items()} == {
        "blimp/a.jsonl": 2, "blimp/b.jsonl": 1, "c.tsv": 1,
    }  # fmt: skip
    assert "blimp/b.jsonl line 1: not JSON" in err and "1 of 4 pairs have a word that the model does not know" in err
    rows = list(csv.DictReader((tmp_path / "o.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(row["file"], row["pair"], row["UID"], row["only_here"]) for row in rows] == [
        ("blimp/a.jsonl", "1", "order", ""), ("blimp/a.jsonl", "2", "order", "1"), ("blimp/b.jsonl", "2", "order", ""),
        ("c.tsv", "1", "", ""),
    ]  # fmt: skip
    status, out, err = command("score", "--model", model, "--input", "c.tsv", "--input", "blimp/a.jsonl", "--score.text_field", "good")
    assert status == 0 and "blimp/a.jsonl line 1: not an object" in err and out.startswith("file\titem\t")
    for words, message in (([".hidden_folder"], "cannot be read"), (["c.tsv", "-"], "cannot be read together with files")):
        status, _, err = command("pairs", "--model", model, "--input", *words)
        assert status == 2 and message in err


def test_the_interval_is_where_the_normal_test_does_not_reject() -> None:
    for right, count in [(0, 5), (1, 1), (7, 10), (830, 1000)]:
        low, high = wilson(right, count)
        for bound in (low, high):
            if 0 < bound < 1:  # Wilson's bounds p solve (right / count - p)^2 = z^2 p (1 - p) / count
                assert (right / count - bound) ** 2 == pytest.approx(pairs_summary.NORMAL_95**2 * bound * (1 - bound) / count, rel=1e-9)
        assert 0 <= low <= right / count <= high <= 1
    assert math.erf(pairs_summary.NORMAL_95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-15)


def test_output_holds_the_input_and_the_scores(word_engine: Engine) -> None:
    source = reader(BLIMP, "f.jsonl")
    results = list(pairs.score_pairs(source.rows(), lambda some: iter(word_engine.score([sentence.text for sentence in some]))))
    records = [json.loads(line) for row, pair in results for line in PairWriter("jsonl", []).lines(row, pair)]
    assert [record["pair"] for record in records] == [1, 2, 3, 4, 5, 6] and [("error" in record) for record in records].count(True) == 3
    good, bad = word_engine.score(["the cat sees a dog"])[0], word_engine.score(["cat the sees dog a"])[0]
    assert records[0]["difference"] == pytest.approx(good.log_prob - bad.log_prob, abs=1e-5) and records[0]["UID"] == "order"
    assert records[0]["correct"] == int(good.log_prob > bad.log_prob) and records[0]["good"] == "the cat sees a dog"
    # Two words that the model does not know are one to it.
    assert (records[4]["difference"], records[4]["tie"], records[4]["correct"], records[4]["input_pair"]) == (0.0, 1, 0, 7)
    source = reader(b"kind\tbad\tpair\tgood\nx\tcat the\t3\tthe cat\n")
    results = list(pairs.score_pairs(source.rows(), lambda some: iter(word_engine.score([sentence.text for sentence in some]))))
    writer = PairWriter("tsv", source.extra_columns())
    text = writer.header + "".join(line for row, pair in results for line in writer.lines(row, pair))
    (cells,) = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    assert (cells["kind"], cells["input_pair"], cells["pair"], cells["good"], cells["bad"]) == ("x", "3", "1", "the cat", "cat the")


def test_counts_are_summed_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks whose bytes are concatenated as `Ranks.gather` does."""
    all_counts = [PairCounts(), PairCounts()]
    all_counts[0].add("x", pair_of(-1, -2))
    all_counts[1].add("x", pair_of(-2, -1))
    all_counts[1].add("a longer name", pair_of(-2, -4))
    all_counts[0].errors, all_counts[1].errors = 1, 3
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(Ranks, "sum", lambda self, values: values + np.array([0, *map(len, sent)] if sent else [0, 0]))
    monkeypatch.setattr(Ranks, "gather", lambda self, own, axis, sizes: torch.cat([own, *sent]) if self.first else sent.append(own))
    for rank in (1, 0):
        all_counts[rank].reduce(Ranks(rank, 2, torch.device("cpu")))
    summary = all_counts[0].summary()
    assert (summary["pairs"], summary["accuracy"], summary["lines_that_are_no_pairs"]) == (3, pytest.approx(2 / 3, abs=1e-6), 4)
    assert summary["groups"]["x"]["pairs"] == 2 and summary["groups"]["a longer name"]["mean_difference"] == 2


def test_the_command_prints_the_summary(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    model = made("word").run.dir / "model"
    (tmp_path / "in.jsonl").write_bytes(BLIMP)
    status, out, err = command(
        "pairs", "--model", model, "--input", "in.jsonl", "--out", "o.jsonl", "--summary", "s.json", "--group", "UID"
    )  # fmt: skip
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    assert status == 0 and "order" in out and "warning: line 2: not JSON" in err and "3 of 6 lines are not pairs" in err
    good = [record for record in records if "error" not in record]
    assert summary["accuracy"] == pytest.approx(sum(record["correct"] for record in good) / len(good), abs=1e-6)
    assert summary["groups"]["order"]["pairs"] == 2 and summary["ties"] == 1 and summary["weights_digest"]
    status, out, err = command("pairs", "--model", model, "--input", "in.jsonl", "--out", "-")
    assert status == 0 and out.startswith("item\tpair\t") and len(out.splitlines()) == 4 and "accuracy" in err
    (tmp_path / "none.tsv").write_bytes(b"good\tbad\n")
    assert command("pairs", "--model", model, "--input", "none.tsv")[0] == 2

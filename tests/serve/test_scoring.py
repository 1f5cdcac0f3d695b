"""Scores of sentences: independent of what is scored beside them, and equal to reading token by token."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import PacklmError
from serve import scoring
from serve.engine import Engine

LINES = ["the cat sees a dog.", "tree", "", "a small dog quietly eats under the tree, often.", "Ümlaut\tnaïve", "the cat sees a dog."]


def test_a_score_is_the_chain_of_steps(engine: Engine) -> None:
    for line, score in zip(LINES, engine.score(LINES), strict=True):
        ids, _ = engine.encoder.encode_sentences([line])
        state, read, expected = engine.model.recurrence.zero_state(1), engine.encoder.eos, []
        for target in ids.tolist():
            log_probs, state = engine.model.step(torch.tensor([read]), state)
            expected.append(float(log_probs[0, target]))
            read = target
        assert score.log_probs == pytest.approx(expected, abs=1e-4)
        assert score.log_prob == pytest.approx(sum(expected), abs=1e-3)
        assert score.surprisals == pytest.approx(-np.array(expected) / np.log(2), abs=1e-3)
        assert score.tokens[-1] == "<eos>" and (not line.isascii() or "".join(score.tokens[:-1]) == line)


def test_scores_depend_neither_on_the_batch_nor_on_the_order(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = [score.log_prob for score in engine.score(LINES)]
    assert together[0] == pytest.approx(together[5], abs=1e-5)
    assert [engine.score([line])[0].log_prob for line in LINES] == pytest.approx(together, abs=1e-4)
    assert [score.log_prob for score in engine.score(LINES[::-1])][::-1] == pytest.approx(together, abs=1e-4)
    monkeypatch.setattr(scoring, "CHUNK_LINES", 2)
    assert [score.log_prob for score in scoring.score(engine.model, engine.encoder, LINES, 3)] == pytest.approx(together, abs=1e-4)


def test_white_space_around_a_line_and_its_end_do_not_count(engine: Engine) -> None:
    one, other = engine.score(["the cat", " \tthe cat  \r\n"])
    assert one.tokens == other.tokens and one.log_prob == pytest.approx(other.log_prob, abs=1e-5)


def test_the_table_is_tidy(engine: Engine) -> None:
    stream, scores = io.StringIO(), engine.score(LINES)
    scoring.write_tsv(scores, stream)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue()), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == sum(len(score.tokens) for score in scores)
    for number, score in enumerate(scores, 1):
        own = [row for row in rows if row["sentence"] == str(number)]
        assert [int(row["position"]) for row in own] == list(range(1, len(score.tokens) + 1))
        assert sum(float(row["log_prob"]) for row in own) == pytest.approx(float(own[0]["sentence_log_prob"]), abs=1e-4)
        assert float(own[0]["surprisal"]) == pytest.approx(-float(own[0]["log_prob"]) / np.log(2), abs=1e-5)
    assert [row["token"] for row in rows if row["sentence"] == "3"] == ["<eos>"]  # the empty sentence
    assert "\\t" in "".join(row["token"] for row in rows if row["sentence"] == "5")


def test_tokens_are_escaped_so_that_they_can_be_told_apart() -> None:
    assert [scoring.escape(token) for token in ("\t", "\\t", "\n", "\r", " a")] == ["\\t", "\\\\t", "\\n", "\\r", " a"]


def test_text_that_is_not_utf8_is_an_error_that_names_its_line() -> None:
    lines = scoring.read_lines(io.BytesIO(b"\xef\xbb\xbfgood\r\nbad \xff\n"), "given.txt")
    assert next(lines) == "good"
    with pytest.raises(PacklmError, match=r"given\.txt, line 2: not UTF-8 at byte 5"):
        next(lines)


def test_a_score_that_is_no_number_is_an_error(engine: Engine) -> None:
    broken = Engine(engine.model, replace(engine.about), engine.encoder, {})
    bias = broken.model.projection.bias
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[5] = torch.inf
        with pytest.raises(PacklmError, match="unusable"):
            broken.score(["the cat"])
    finally:
        with torch.no_grad():
            bias.copy_(kept)

"""Rescoring: contexts as they are defined, orders that follow from the totals, and fewer word errors after tuning."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packlm import config as configuration
from packlm.base.errors import PacklmError
from packlm.config import Config, Rescore
from packlm.engine import Engine
from packlm.scoring import context as context_scores
from packlm.scoring import sentences as scoring
from packlm.scoring.context import Context
from serve.rescore import rescore
from serve.rescore.nbest import Hypothesis, Utterance
from tests.scoring.test_finite import spoiled
from tests.scoring.test_sentences import LINES, chain
from tests.serve.scoring.test_nbest import write
from tests.serve.test_main import (
    Command,
    command,  # noqa: F401
)
from tests.small_models import WORDS


@pytest.mark.parametrize(("chunk", "batch_tokens"), [(1, 8192), (3, 1), (4096, 8192)])
def test_log_p_after_a_context_equals_the_chain_of_its_tokens(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, chunk: int, batch_tokens: int
) -> None:  # fmt: skip
    monkeypatch.setattr(context_scores, "CHUNK_SENTENCES", chunk)
    contexts: list[Context] = [(), ("the cat",), (LINES[3], ""), ("the cat",), ("", "", " a dog ")]
    texts = [(context, text) for context in contexts for text in ("tree", "", LINES[0], " tree ")]
    results, unknown = context_scores.log_probs(engine.model, engine.encoder, texts, batch_tokens)
    for (context, text), value in zip(texts, results.tolist(), strict=True):
        steps = chain(engine, [*context, text])[-1]
        assert value == pytest.approx(sum(float(log_probs[target]) for target, log_probs in steps), abs=1e-4)
    assert not unknown.any() and results[0] == results[3]
    assert len(context_scores.log_probs(engine.model, engine.encoder, [], 9)[0]) == 0


def test_equal_texts_are_scored_once_and_unknown_words_counted(word_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    segment_scores = scoring.segment_scores
    monkeypatch.setattr(context_scores, "segment_scores", lambda model, segments, *rest, **more: (
        seen.append(len(segments)), segment_scores(model, segments, *rest, **more),
    )[1])  # fmt: skip
    one, other = ((), "the zebra"), (("a",), "the zebra")
    texts: list[tuple[Context, str]] = [one, ((), "the okapi zebra"), other, ((), " the zebra"), other]
    results, unknown = context_scores.log_probs(word_engine.model, word_engine.encoder, texts, 100)
    assert seen == [3] and unknown.tolist() == [1, 2, 1, 1, 1] and results[0] == results[3] and results[2] == results[4] != results[0]


def test_a_score_that_is_not_finite_is_an_error(engine: Engine) -> None:
    with spoiled(engine, torch.inf), pytest.raises(PacklmError, match="unusable"):
        context_scores.log_probs(engine.model, engine.encoder, [((), "the cat")], 100)


def utterance(
    id: str, texts: Sequence[str], scores: Sequence[float], recording: str | None = None, reference: str | None = None
) -> Utterance:  # fmt: skip
    hypotheses = [Hypothesis(text, rank, score) for rank, (text, score) in enumerate(zip(texts, scores, strict=True), 1)]
    return Utterance(id, hypotheses, 1, reference, recording)


def letter_model(texts: Sequence[tuple[Context, str]]) -> tuple[np.ndarray, np.ndarray]:
    """A model whose log P of a text is the number of its letters in the context."""
    return np.array([float(sum("".join(context).count(letter) for letter in text)) for context, text in texts]), np.zeros(len(texts), int)


def test_a_context_is_what_won_before_in_the_recording() -> None:
    utterances = [
        utterance("1", ["a", "b"], [0, 1], "r"), utterance("x", ["q"], [0], "s"), utterance("2", ["a", "b"], [0.5, 0], "r"),
        utterance("alone", ["b", "a"], [0, 0.25]), utterance("3", ["aa", "bb"], [1, 0], "r"),
    ]  # fmt: skip
    seen: list[tuple[Context, str]] = []

    def score(texts: Sequence[tuple[Context, str]]) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(texts)
        return letter_model(texts)

    results, weights = rescore.rescore(utterances, score, Rescore(lm_weight=1.0, context=1), None)
    assert [one.utterance.id for one in results] == ["1", "x", "2", "alone", "3"] and weights.tolist() == [1, 0, 0]
    # The second of utterance 1 wins by its score; with it before, the second of 2; with that, the second of 3.
    assert [one.order(weights)[0] for one in results] == [1, 0, 1, 1, 1]
    assert [context for context, text in seen if text == "aa"] == [("b",)] and {context for context, text in seen if text == "q"} == {()}
    results, _ = rescore.rescore(utterances, score, Rescore(lm_weight=1.0), None)
    assert [one.order(weights)[0] for one in results] == [1, 0, 0, 1, 0]
    for second, context in (("b", ("b",)), (None, ("a",))):  # an utterance without a reference is left out of the context
        referred = [replace(one, reference={"1": "a", "2": second}.get(one.id)) for one in utterances]
        seen.clear()
        rescore.rescore(referred, score, Rescore(lm_weight=1.0, context=1, context_from="reference"), None)
        assert {text: context for context, text in seen if text in ("aa", "q")} == {"aa": context, "q": ()}


def test_weights_are_tuned_with_the_first_hypotheses_as_context() -> None:
    utterances = [utterance("1", ["a", "b"], [1, 0], "r", "a"), utterance("2", ["bb", "aa"], [3, 0], "r", "aa")]
    seen: list[tuple[Context, str]] = []

    def score(texts: Sequence[tuple[Context, str]]) -> tuple[np.ndarray, np.ndarray]:
        seen.append(texts[-1])
        return letter_model(texts)

    results, weights = rescore.rescore(utterances, score, Rescore(context=3), None)
    assert weights[0] > 1.5 and [one.order(weights)[0] for one in results] == [0, 1]
    assert seen == [(("a",), "aa"), ((), "b"), (("a",), "aa")]  # all together, then in turn
    assert {name: rate.rate for name, rate in rescore.rates(results, weights).items()} == {"before": 0.5, "after": 0, "oracle": 0}


def test_the_old_language_model_has_a_weight() -> None:
    utterances = [Utterance("u", [Hypothesis("a", 1, -1.0, -5.0), Hypothesis("b b", 2, -2.0, -1.0)], 1)]
    results, weights = rescore.rescore(utterances, letter_model, Rescore(lm_weight=0.0, old_lm_weight=0.5, word_bonus=0.25), None)
    assert results[0].totals(weights).tolist() == [-1 - 2.5 + 0.25, -2 - 0.5 + 0.5]


@pytest.fixture
def noisy(word_engine: Engine) -> list[dict[str, Any]]:
    """Lists with random scores; the reference is the most likely text by the model with a bonus of 3 nats a word."""
    generator = np.random.default_rng(3)
    lists: list[dict[str, Any]] = []
    for number in range(40):
        texts = [" ".join(generator.choice(WORDS, generator.integers(2, 6))) for _ in range(6)]
        liked = [score.log_prob + 3 * len(score.words) for score in word_engine.score(texts)]
        scores = sorted(generator.normal(0, 2, 6).round(3).tolist(), reverse=True)
        hypotheses = [{"text": text, "score": score} for text, score in zip(texts, scores, strict=True)]
        lists.append({"id": f"u{number:03d}", "hypotheses": hypotheses, "reference": texts[int(np.argmax(liked))]})
    return lists


def test_word_errors_fall_after_tuning(
    command: Command, made: Callable[[str], Config], noisy: list[dict[str, Any]], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    model = made("word").run.dir / "model"
    lines = [json.dumps(record) for record in noisy]
    (tmp_path / "n.jsonl").write_text("\n".join([*lines[:5], "nonsense", *lines[5:]]), encoding="utf-8")
    (tmp_path / "dev").write_text("".join(f"{record['id']}\n" for record in noisy[:20]), encoding="utf-8")
    options = ["rescore", "--model", model, "--nbest", "n.jsonl"]
    status, out, err = command(*options, "--tune-on", "dev", "--word-bonus", "tune", "--out", "o.jsonl", "--summary", "s.json")
    assert status == 0 and "warning: n.jsonl line 6: not JSON" in err and "tuned on" in out and "only `the rest` is not" in out
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    rates = summary["word_error_rates"]
    assert rates["tuned_on"]["after"]["rate"] < 0.2 * rates["tuned_on"]["before"]["rate"]
    assert rates["the_rest"]["after"]["rate"] < 0.5 * rates["the_rest"]["before"]["rate"] and rates["all"]["oracle"]["errors"] == 0
    assert summary["tuned"] == ["lm_weight", "word_bonus"] and summary["scores_read_as"] == {"sign": "log-prob", "log_base": "e"}
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "error" in records.pop(5) and [record["id"] for record in records] == [record["id"] for record in noisy]
    errors = sum(record["hypotheses"][0]["errors"] for record in records)
    assert errors == rates["all"]["after"]["errors"]
    weights = summary["weights"]
    for record in records:
        totals = [hypothesis["total"] for hypothesis in record["hypotheses"]]
        assert totals == sorted(totals, reverse=True)
        for hypothesis in record["hypotheses"]:
            expected = hypothesis["score"] + weights["lm_weight"] * hypothesis["log_prob"] + weights["word_bonus"] * hypothesis["words"]
            assert hypothesis["total"] == pytest.approx(expected, abs=1e-4)
    # The tuned weights as options give the same bytes; another base and sign, the same order.
    fixed = ["--lm-weight", weights["lm_weight"], "--word-bonus", weights["word_bonus"]]
    status, out, err = command(*options, *fixed)
    assert status == 0 and out == (tmp_path / "o.jsonl").read_text(encoding="utf-8") and "word error rate" in err
    for record in noisy:
        record["hypotheses"] = [hypothesis | {"score": -hypothesis["score"] / math.log(10)} for hypothesis in record["hypotheses"]]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, noisy)), encoding="utf-8")
    status, out, _ = command(*options, *fixed, "--sign", "cost", "--log-base", "10")
    again = [json.loads(line) for line in out.splitlines()]
    orders = [[[hypothesis["rank"] for hypothesis in one["hypotheses"]] for one in lists] for lists in (again, records)]
    assert orders[0] == orders[1]


def test_kaldi_and_espnet_lists_are_written_in_their_format(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    model = made("word").run.dir / "model"
    write(tmp_path, words="u-1 the cat\nu-2 a dog often\nv-2 tree\n", ac="u-1 3\nu-2 2\nv-2 1\n", text="u a dog often\nz the\n")
    write(tmp_path, segments="u r 1 2\nv r 0 1\n", **{"1best_recog__text": "u the cat\n", "1best_recog__score": "u tensor(-3.)\n"})
    options = ["rescore", "--model", model, "--nbest", "words", "--ac-cost", "ac", "--references", "text", "--out", "o"]
    status, out, err = command(*options, "--context", 1, "--segments", "segments")
    assert status == 0 and (tmp_path / "o" / "text").read_text() == "u a dog often\nv tree\n" and "  50.00 %" not in out
    for warning in ("1 lists have no reference (v first)", "1 references have no list (z first)", "1 lists lack a rank (v first)"):
        assert warning in err
    assert "has never seen a context" in err
    scores = [json.loads(line) for line in (tmp_path / "o" / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["id"] for one in scores] == ["u", "v"] and scores[0]["hypotheses"][0]["score"] == -2.0
    status, _, _ = command("rescore", "--model", model, "--nbest", tmp_path, "--lm-weight", "0.5", "--out", "e")
    total = float((tmp_path / "e" / "1best_recog" / "score").read_text().split()[1])
    assert status == 0 and total == pytest.approx(-3 + 0.5 * Engine.load(model).score(["the cat"])[0].log_prob, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nbest", "n.jsonl"], "lm_weight = tune needs references: give --references FILE, or --lm-weight NUMBER"),
        (["--nbest", "n.jsonl", "--lm-weight", "most"], "rescore.lm_weight"),
        (["--nbest", "n.jsonl", "--lm-weight", "nan"], "rescore.lm_weight"),
        (["--nbest", "n.jsonl", "--lm-weight", "1", "--tune-on", "text"], "--tune-on needs a weight that is tuned"),
        (["--nbest", "n.jsonl", "--references", "text", "--tune-on", "other"], "names no utterance"),
        (["--nbest", "n.jsonl", "--references", "silence"], "the references hold no words"),
        (["--nbest", "n.jsonl", "--lm-weight", "1", "--old-lm-weight", "1"], "no score of the old language model"),
        (["--nbest", "n.jsonl", "--lm-weight", "1", "--context", "1"], "--segments FILE"),
        (["--nbest", "text", "--lm-weight", "1"], "it is none of these"),
        (["--nbest", "text", "--lm-cost", "text"], "--lm-cost goes with --ac-cost"),
        (["--nbest", "text", "--ac-cost", "text", "--sign", "cost"], "about JSONL"),
        (["--nbest", "n.jsonl", "--lm-weight", "1", "--out", "n.jsonl"], "write over the input"),
        (["--nbest", "text", "--ac-cost", "text", "--out", "."], "write over the input"),
        (["--nbest", "empty.jsonl"], "no n-best list found"),
        (["--nbest", "n.jsonl", "--lm-weight", "1", "--model", "nowhere"], "nowhere: no model here"),
    ],
)
def test_a_wrong_request_is_refused_before_the_model_is_loaded(
    command: Command, tmp_path: Path, words: list[str], message: str  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "n.jsonl").write_text('{"id": "u", "hypotheses": [{"text": "a", "score": 1}]}\n', encoding="utf-8")
    write(tmp_path, text="u 1\n", other="v\n", silence="u\n")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{", encoding="utf-8")  # never read
    status, out, err = command("rescore", "--model", "model", *words)
    assert (status, out) == (2, "") and message in err
    assert configuration.load(None, ["--rescore.word_bonus", "-0.5"]).rescore.word_bonus == -0.5

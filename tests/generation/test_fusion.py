"""Shallow fusion: hypotheses that grow word by word score what whole texts do; the example's search finds what full rescoring finds."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.engine import Engine
from packlm.generation.fusion import FusionScorer, PartialHypothesis
from packlm.generation.stepper import Stepper
from tests.generation.enumeration import EOS, chain, tiny
from tests.small_models import trained_on

TEXTS = ["the cat sees a naïve dog.", "Ümlaut", "zebra often eats under the small tree", "the the the"]


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
def test_hypotheses_score_what_whole_texts_do(made: Callable[[str], Config], kind: str) -> None:
    engine = Engine.load(made(kind).run.dir / "model")
    scorer, words = engine.fusion(), [text.split() for text in TEXTS]
    hypotheses = [scorer.start() for _ in TEXTS]
    for position in range(max(map(len, words))):
        running = [index for index, each in enumerate(words) if position < len(each)]
        extended = scorer.extend([hypotheses[index] for index in running], [words[index][position] for index in running])
        for index, one in zip(running, extended, strict=True):
            assert one.log_prob < hypotheses[index].log_prob
            hypotheses[index] = one
    expected = [score.log_prob for score in engine.score(TEXTS)]
    assert scorer.finish(hypotheses).tolist() == pytest.approx(expected, rel=1e-6)
    assert [one.text for one in hypotheses] == TEXTS
    alone = scorer.start()
    for word in words[2]:
        (alone,) = scorer.extend([alone], [word])
    assert alone.log_prob == hypotheses[2].log_prob  # to the bit


def test_hypotheses_after_other_sentences_score_what_the_document_does(engine: Engine) -> None:
    documents = trained_on(engine, "streams")
    (reading,) = documents.read("the cat sees a dog.")
    scorer = documents.fusion(reading.state)
    (hypothesis,) = scorer.extend([scorer.start()], ["Ümlaut"])
    expected = documents.score(["the cat sees a dog.", "Ümlaut"], document=True)[1].log_prob
    assert scorer.finish([hypothesis])[0] == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(documents.score("Ümlaut")[0].log_prob, rel=1e-3)


def test_what_branches_off_is_read_once(word_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, step = [], Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda stepper, ids, state: rows.append(len(ids)) or step(stepper, ids, state))
    scorer = word_engine.fusion()
    start = scorer.start()
    first, second = scorer.extend([start, start], ["the", "cat"])
    assert rows == [1]
    scorer.extend([first, second, first, start], ["cat", "dog", "dog", "a"])
    assert rows == [1, 2]


def test_hypotheses_of_ids_are_the_chain_rule() -> None:
    model = tiny("lstm", vocabulary=9)
    scorer = FusionScorer(Stepper(model), None, model.zero_state(1))
    one, total = PartialHypothesis("", (EOS,), 0.0, model.zero_state(1)), 0.0
    for index, id in enumerate(ids := [3, 1, 1, 7]):
        expected, _ = chain(model, (EOS, *ids[:index]))
        torch.testing.assert_close(scorer.log_probs([one])[0], expected, rtol=1e-12, atol=1e-12)
        total += float(expected[id])
        (one,) = scorer.advance([one], [id])
        assert one.log_prob == pytest.approx(total, rel=1e-12)


class Merging:
    """A tokenizer that joins `b` with a `c` after it, so that a word changes the tokens before it."""

    eos, ids = EOS, {"a": 1, "b": 2, "c": 3, "b c": 4}

    def encode_open(self, text: str) -> np.ndarray:
        return np.array([self.ids[part.strip()] for part in text.replace("b c", "+").replace(" ", ",").replace("+", "b c").split(",")])


def test_a_word_may_change_how_those_before_it_are_cut() -> None:
    model = tiny("lstm", vocabulary=9)
    scorer = FusionScorer(Stepper(model), Merging(), model.zero_state(1))
    one = scorer.start()
    for word, ids in (("a", [1]), ("b", [1, 2]), ("c", [1, 4]), ("a", [1, 4, 1])):
        (one,) = scorer.extend([one], [word])
        expected = sum(float(chain(model, (EOS, *ids[:index]))[0][id]) for index, id in enumerate(ids))
        assert one.ids == (EOS, *ids) and one.log_prob == pytest.approx(expected, rel=1e-12)


def test_what_is_no_word_is_refused(word_engine: Engine) -> None:
    scorer = word_engine.fusion()
    for word in ("", "the cat", " the"):
        with pytest.raises(RequestError, match="a word without white space is expected"):
            scorer.extend([scorer.start()], [word])
    with pytest.raises(RequestError, match="use advance"):
        scorer.extend(scorer.advance([scorer.start()], [3]), ["the"])
    assert scorer.extend([], []) == []


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "ctc_shallow_fusion.py"
    spec = importlib.util.spec_from_file_location("ctc_shallow_fusion", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_example_runs(example: ModuleType, made: Callable[[str], Config], capsys: pytest.CaptureFixture[str]) -> None:
    example.main(str(made("bpe").run.dir / "model"))
    alone, fused = capsys.readouterr().out.splitlines()
    assert alone == "lm_weight 0.0: the fanction returns the value" and fused.startswith("lm_weight 0.5: the f")


def test_a_search_that_prunes_nothing_finds_what_full_rescoring_finds(example: ModuleType, engine: Engine) -> None:
    characters, lm_weight, word_bonus = "at ", 0.7, 0.4
    log_probs = np.log(np.random.default_rng(5).dirichlet(np.ones(4), 6))
    of_texts: dict[str, float] = {}
    for alignment in itertools.product(range(4), repeat=len(log_probs)):
        merged = [symbol for symbol, _ in itertools.groupby(alignment)]
        text = "".join(characters[symbol - 1] for symbol in merged if symbol)
        log_prob = sum(log_probs[time, symbol] for time, symbol in enumerate(alignment))
        of_texts[text] = np.logaddexp(of_texts.get(text, -math.inf), log_prob)
    texts = [text for text in of_texts if text and " ".join(text.split()) == text]
    expected = {
        text: of_texts[text] + lm_weight * score.log_prob + word_bonus * len(text.split())
        for text, score in zip(texts, engine.score(texts), strict=True)
    }
    found = example.search(log_probs, characters, engine.fusion(), lm_weight, word_bonus, beams=10_000)
    assert dict(found) == pytest.approx(expected, rel=1e-5)
    assert [text for text, _ in found] == sorted(expected, key=lambda text: -expected[text])
    assert len({len(text.split()) for text in expected}) > 1
    narrow = example.search(log_probs, characters, engine.fusion(), lm_weight, word_bonus, beams=3)
    assert 1 <= len(narrow) <= 3 and all(total <= expected[text] + 1e-5 for text, total in narrow)

"""Scores of sentences: independent of the other sentences in a batch, and equal to reading token by token."""

import math

import numpy as np
import pytest
import torch

from packlm.base.errors import PacklmError
from packlm.engine import Engine
from packlm.scoring import sentences as scoring
from packlm.scoring.sentences import BITS, Sentence, SentenceScore
from tests.scoring.test_finite import spoiled

LINES = ["the cat sees a dog.", "tree", "", "a small dog quietly eats under the tree, often.", "Ümlaut\tnaïve", "the cat sees a dog."]


def chain(engine: Engine, texts: list[str]) -> list[list[tuple[int, torch.Tensor]]]:
    """For each text (read one after the other, from one state) its ids, each with ln P of every id at its position."""
    state, previous, steps = engine.model.recurrence.zero_state(1), engine.encoder.eos, []
    for text in texts:
        steps.append([])
        for target in engine.encoder.encode_sentences([text.strip()])[0].tolist():
            log_probs, state = engine.model.step(torch.tensor([previous]), state)
            steps[-1].append((target, log_probs[0].double()))
            previous = target
    return steps


def check(engine: Engine, score: SentenceScore, steps: list[tuple[int, torch.Tensor]]) -> None:
    """A score's numbers from the distributions at its tokens."""
    assert score.log_probs == pytest.approx([float(log_probs[target]) for target, log_probs in steps], abs=1e-4)
    entropies = [-float((log_probs.exp() * log_probs).sum()) * BITS for _, log_probs in steps]
    assert score.entropies == pytest.approx(entropies, abs=1e-4)
    assert score.log_prob == pytest.approx(sum(float(log_probs[target]) for target, log_probs in steps), abs=1e-3)
    assert score.surprisals == pytest.approx(-score.log_probs * BITS)
    assert score.perplexity == pytest.approx(math.exp(-score.log_prob / len(steps)))
    assert score.word_surprisals.sum() + score.end_surprisal == pytest.approx(-score.log_prob * BITS, abs=1e-6)


def test_a_score_is_the_chain_of_steps(engine: Engine) -> None:
    for line, score in zip(LINES, engine.score(LINES), strict=True):
        check(engine, score, chain(engine, [line])[0])
        assert score.tokens[-1] == "<eos>" and (not line.isascii() or "".join(score.tokens[:-1]) == line)
        assert score.words == line.split()


@pytest.mark.parametrize("chunk", [1, 2, 4096])
@pytest.mark.parametrize("batch_tokens", [1, 9, 8192])
def test_sentences_of_a_document_are_read_one_after_the_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, chunk: int, batch_tokens: int
) -> None:  # fmt: skip
    monkeypatch.setattr(scoring, "CHUNK_SENTENCES", chunk)
    documents = [LINES[:3], LINES[3:4], LINES[4:]]
    sentences = [Sentence(line, opens=not number) for lines in documents for number, line in enumerate(lines)]
    scores = list(scoring.score(engine.model, engine.encoder, sentences, batch_tokens, carry_state=True))
    chains = [steps for lines in documents for steps in chain(engine, lines)]
    for score, steps in zip(scores, chains, strict=True):
        check(engine, score, steps)
    assert engine.score(LINES[:3], document=True)[2].log_prob == pytest.approx(scores[2].log_prob, abs=1e-4)
    assert abs(engine.score(LINES[2:3])[0].log_prob - scores[2].log_prob) > 1e-3


def test_scores_depend_neither_on_the_batch_nor_on_the_order(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = [score.log_prob for score in engine.score(LINES)]
    assert together[0] == pytest.approx(together[5], abs=1e-5)
    assert [engine.score([line])[0].log_prob for line in LINES] == pytest.approx(together, abs=1e-4)
    assert [score.log_prob for score in engine.score(LINES[::-1])][::-1] == pytest.approx(together, abs=1e-4)
    monkeypatch.setattr(scoring, "CHUNK_SENTENCES", 2)
    for batch_tokens in (1, 3, 50):  # sentences longer than a batch are read in pieces
        scores = scoring.score(engine.model, engine.encoder, map(Sentence, LINES), batch_tokens)
        assert [score.log_prob for score in scores] == pytest.approx(together, abs=1e-4)


def test_one_sentence_alone_and_among_a_thousand(word_engine: Engine) -> None:
    lines = [" ".join(np.random.default_rng(number).choice(LINES[3].split(), number % 40)) for number in range(1000)]
    together = word_engine.score(lines)
    for number in range(0, 1000, 97):
        alone = word_engine.score([lines[number]])[0]
        assert alone.log_probs == pytest.approx(together[number].log_probs, rel=1e-5, abs=1e-5)
        assert alone.word_surprisals == pytest.approx(together[number].word_surprisals, rel=1e-5, abs=1e-5)


def test_whitespace_around_a_line_is_ignored(engine: Engine) -> None:
    one, other = engine.score(["the cat", " \tthe cat  \r\n"])
    assert one.tokens == other.tokens and one.log_prob == pytest.approx(other.log_prob, abs=1e-5)


def test_a_score_that_is_not_finite_is_an_error(engine: Engine) -> None:
    with spoiled(engine, torch.inf), pytest.raises(PacklmError, match="unusable"):
        engine.score(["the cat"])

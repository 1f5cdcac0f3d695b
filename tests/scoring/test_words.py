"""Words from tokens: the probability of a word is the sum over everything that could follow."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from packlm import config
from packlm.config import Config
from packlm.engine import Engine
from packlm.model import language_model as models
from packlm.scoring import words
from packlm.scoring.sentences import BITS
from packlm.scoring.words import SentenceWords
from tests.scoring.test_sentences import LINES, chain
from tests.small_models import wild

TEXTS = [*LINES, "  two   spaces and\ttabs  ", "naïve Ümlauts, 日本 語", "a"]


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
def test_words_are_those_of_the_text_and_own_their_tokens(made: Callable[[str], Config], kind: str) -> None:
    engine = Engine.load(made(kind).run.dir / "model")
    opens = engine.encoder.opens_word
    assert (opens is None) == (kind == "word")
    for text, score in zip(TEXTS, engine.score(TEXTS), strict=True):
        assert score.words == text.split()
        sentence_words = words.words_of(engine.encoder, [text.strip()])
        pairs = list(zip(score.tokens, sentence_words.owners.tolist(), strict=True))
        owned = ["".join(token for token, owner in pairs if owner == word) for word in range(len(score.words))]
        if kind == "bpe" and text.isascii():
            assert [word.strip() for word in owned] == score.words
        assert sentence_words.owners[-1] == len(score.words) and sentence_words.texts == [score.words]


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
def test_the_surprisal_of_a_word_is_its_definition(made: Callable[[str], Config], kind: str) -> None:
    """-log2 of the probability of the word's tokens and then of any end of a word, given that the one before has ended."""
    engine = Engine.load(made(kind).run.dir / "model")
    everything = np.ones(engine.encoder.vocab_size, bool)
    opens = torch.from_numpy(everything if engine.encoder.opens_word is None else engine.encoder.opens_word)
    for text, score in zip(TEXTS, engine.score(TEXTS), strict=True):
        steps, owners = chain(engine, [text])[0], words.words_of(engine.encoder, [text.strip()]).owners.tolist()
        # Whitespace that is unknown to the tokenizer says nothing.
        ended = [float(log_probs[opens].logsumexp(0)) if opens[target] else 0.0 for target, log_probs in steps]
        for word in range(len(score.words)):
            tokens = [index for index, owner in enumerate(owners) if owner == word]
            expected = sum(float(steps[index][1][steps[index][0]]) for index in tokens) + ended[tokens[-1] + 1]
            expected -= ended[tokens[0]] if tokens[0] else 0.0
            assert score.word_surprisals[word] == pytest.approx(-expected * BITS, abs=1e-4)
            assert score.word_entropies[word] == pytest.approx(score.entropies[tokens[0]])
            assert score.entropy_reductions[word] == pytest.approx(score.entropies[tokens[0]] - score.entropies[tokens[-1] + 1])
        last_end = ended[-1] if len(steps) > 1 else 0.0
        assert score.end_surprisal == pytest.approx(-(score.log_probs[-1] - last_end) * BITS, abs=1e-4)


def test_unknown_words_are_marked(word_engine: Engine) -> None:
    score = word_engine.score(["the zebra sees a zebra"])[0]
    assert score.unknown.tolist() == [False, True, False, False, True]


def test_words_have_the_probability_of_all_that_begins_with_them() -> None:
    """Ids 1 and 2 go on with a word, 3 and 4 begin the next one, 0 ends it all: the chance that a sentence's first word is 1 2, and that
    its second is then 3, summed over every sequence of five tokens."""
    model = wild(models.build(_settings(), 5, seed=5), 3.0).double()
    opens = np.array([True, False, False, True, True])
    first_word, both_words = 0.0, 0.0
    for ids in itertools.product(range(5), repeat=5):
        probability = _probability(model, ids)
        cut = ids[: ids.index(0) + 1] if 0 in ids else ids
        first_word += probability * (cut[:2] == (1, 2) and opens[cut[2]])
        both_words += probability * (cut[:3] == (1, 2, 3) and opens[cut[3]])
    ids = np.array([1, 2, 3, 4, 0])
    losses, boundaries = _scores(model, ids, opens)
    sentence_words = SentenceWords([[]], np.array([0, 0, 1, 2, 3]), np.array([0, 2, 3, 4]), np.array([4]))
    surprisals = words.surprisals(sentence_words, losses, boundaries, np.array([5]))
    assert math.exp(-surprisals[0]) == pytest.approx(first_word, rel=1e-9)
    assert math.exp(-surprisals[:2].sum()) == pytest.approx(both_words, rel=1e-9)
    assert surprisals.sum() == pytest.approx(losses.sum(), rel=1e-12)


def _settings() -> config.Model:
    return config.Model(hidden=5, layers=1)


def _probability(model: models.LanguageModel, ids: tuple[int, ...]) -> float:
    return math.exp(-_scores(model, np.array(ids), np.ones(5, bool))[0].sum())


def _scores(model: models.LanguageModel, ids: np.ndarray, opens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses, and -log P of the marked ids, at each of some ids read from a zero state after id 0."""
    inputs = torch.from_numpy(np.concatenate([[0], ids[:-1]]))
    batch = models.Batch(inputs, torch.from_numpy(ids), np.array([len(ids)]), None, False)
    scores, _ = model.scores(batch, None, torch.from_numpy(opens))
    return scores.losses.numpy(), -scores.marked.numpy()

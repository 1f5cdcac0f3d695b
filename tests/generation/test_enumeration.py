"""A model of four tokens whose sentences are all enumerated: scores of sentences, pairs and n-best lists follow from that table."""

import itertools
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from packlm import config
from packlm.config import Rescore
from packlm.engine import Engine
from packlm.model import language_model as models
from packlm.scoring.context import log_probs
from packlm.scoring.sentences import BITS
from packlm.text.encoder import Encoder
from serve.pairs import pairs
from serve.pairs.pairs import PairRow
from serve.rescore import rescore
from serve.rescore.nbest import Hypothesis, Utterance
from tests.small_models import wild

LONGEST = 4
SENTENCES = [" ".join(words) for length in range(LONGEST) for words in itertools.product(("a", "b", "z"), repeat=length)]
"""Every sentence of at most three words, the word that is unknown to the model being spelled z."""


@pytest.fixture(scope="module")
def tiny(engine: Engine) -> Engine:
    """A model of `<eos>`, `<unk>`, a and b."""
    tokenizer = Tokenizer(WordLevel({"<eos>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    model = wild(models.build(config.Model(hidden=5, layers=1), 4, seed=5), 3.0).double()
    return Engine(model, engine.info.model_copy(update={"vocab_size": 4}), Encoder(tokenizer, ""), {})


@pytest.fixture(scope="module")
def table(tiny: Engine) -> dict[tuple[int, ...], float]:
    """log P of every sequence of ids that ends with `<eos>` or has four ids, by reading id after id."""
    log_probs_of = {}
    for ids in itertools.product(range(4), repeat=LONGEST):
        ids = ids[: ids.index(0) + 1] if 0 in ids else ids
        state, previous, total = tiny.model.recurrence.zero_state(1), 0, 0.0
        for target in ids:
            log_probs, state = tiny.model.step(torch.tensor([previous]), state)
            total, previous = total + float(log_probs[0, target]), target
        log_probs_of[ids] = total
    return log_probs_of


def truth(table: dict[tuple[int, ...], float], text: str) -> float:
    """log P of a sentence."""
    return table[(*({"a": 2, "b": 3}.get(word, 1) for word in text.split()), 0)]


def test_the_table_is_a_distribution(table: dict[tuple[int, ...], float]) -> None:
    assert len(table) == 1 + 3 + 9 + 27 + 81
    assert math.fsum(math.exp(value) for value in table.values()) == pytest.approx(1, abs=1e-12)


def test_sentences_have_their_log_probability_and_entropy(tiny: Engine, table: dict[tuple[int, ...], float]) -> None:
    for text, score in zip(SENTENCES, tiny.score(SENTENCES), strict=True):
        assert score.log_prob == pytest.approx(truth(table, text), abs=1e-9)
        ids = [{"a": 2, "b": 3}.get(word, 1) for word in text.split()]
        for time in range(len(ids) + 1):
            # The next id's distribution, from the sums of everything that begins with the ids before it.
            begun = [(sequence[time], math.exp(value)) for sequence, value in table.items() if list(sequence[:time]) == ids[:time]]
            masses = [math.fsum(mass for next_id, mass in begun if next_id == id) for id in range(4)]
            whole = sum(masses)
            entropy = -sum(mass / whole * math.log(mass / whole) for mass in masses) * BITS
            assert score.entropies[time] == pytest.approx(entropy, abs=1e-9)


def test_pairs_are_decided_by_the_table(tiny: Engine, table: dict[tuple[int, ...], float]) -> None:
    every = [*itertools.product(SENTENCES[1:16], repeat=2)]
    rows = [PairRow(number, good, bad=bad) for number, (good, bad) in enumerate(every, 1)]
    scored = pairs.score_pairs(iter(rows), lambda sentences: iter(tiny.score([sentence.text for sentence in sentences])))
    for (good, bad), (_, pair) in zip(every, scored, strict=True):
        assert pair is not None
        difference = truth(table, good) - truth(table, bad)
        assert pair.difference == pytest.approx(difference, abs=1e-9)
        assert (pair.difference == 0) == (good == bad) and (abs(difference) < 1e-9 or (pair.difference > 0) == (difference > 0))
        per_token = truth(table, good) / (len(good.split()) + 1) - truth(table, bad) / (len(bad.split()) + 1)
        assert pair.difference_per_token == pytest.approx(per_token, abs=1e-9)
        assert pair.unknown == (good.count("z"), bad.count("z"))


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.25, 0.0), (1.0, 0.5), (4.0, -1.0)])
def test_lists_are_ranked_by_the_table(tiny: Engine, table: dict[tuple[int, ...], float], weights: tuple[float, float]) -> None:
    scores = np.random.default_rng(1).normal(0, 2, len(SENTENCES)).tolist()
    hypotheses = [Hypothesis(text, rank, score) for rank, (text, score) in enumerate(zip(SENTENCES, scores, strict=True), 1)]
    settings = Rescore(lm_weight=weights[0], word_bonus=weights[1])
    (reranked,), fixed = rescore.rescore(
        [Utterance("u", hypotheses, 1)], lambda texts: log_probs(tiny.model, tiny.encoder, texts, 100), settings, None
    )  # fmt: skip
    log_p, words = [truth(table, text) for text in SENTENCES], [len(text.split()) for text in SENTENCES]
    expected = np.array(scores) + weights[0] * np.array(log_p) + weights[1] * np.array(words)
    assert reranked.totals(fixed) == pytest.approx(expected, abs=1e-9)
    assert reranked.order(fixed) == np.argsort(-expected, kind="stable").tolist()


def test_tuning_finds_the_weight_at_which_the_table_is_right(tiny: Engine, table: dict[tuple[int, ...], float]) -> None:
    """Each list holds the most likely sentence of a length and another one that the recogniser prefers by twice the difference."""
    utterances = []
    for length in (1, 2, 3):
        best, *others = sorted((text for text in SENTENCES if len(text.split()) == length), key=lambda text: -truth(table, text))
        for number, other in enumerate(others):
            score = 2 * (truth(table, best) - truth(table, other))
            utterances.append(Utterance(f"{length}-{number}", [Hypothesis(other, 1, score), Hypothesis(best, 2, 0.0)], 1, best))
    rescored, weights = rescore.rescore(utterances, lambda texts: log_probs(tiny.model, tiny.encoder, texts, 100), Rescore(), None)
    rates = rescore.rates(rescored, weights)
    assert rates["after"].errors == 0 < rates["before"].errors and weights[0] == pytest.approx(4, abs=1e-6)

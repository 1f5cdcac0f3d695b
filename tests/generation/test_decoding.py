"""What holds for every decoding strategy, on tiny models."""

import math

import numpy as np
import pytest
import torch

from packlm import config
from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences
from packlm.generation.decoding import prompt_batches
from packlm.generation.prompt_batch import Generation
from packlm.model import language_model as models
from packlm.model.language_model import LanguageModel
from packlm.scoring.sentences import segment_scores
from tests.generation.enumeration import EOS, Sequence, enumerate_all, run, spelled_as, tiny
from tests.small_models import wild


def sentence_losses(model: LanguageModel, sentences: Sentences, batch_tokens: int) -> list[tuple[int, np.ndarray]]:
    """(index, [M] nats of its tokens) of each sentence, from a zero state."""
    losses = segment_scores(model, sentences, batch_tokens)[0].losses
    return list(enumerate(np.split(losses, np.cumsum(sentences.lengths)[:-1])))


def test_the_probabilities_of_all_sequences_sum_to_one() -> None:
    model, limit = tiny(), 4
    sequences = enumerate_all(model, (EOS,), limit)
    assert math.fsum(map(math.exp, sequences.values())) == pytest.approx(1, abs=1e-12)
    # The same from scoring: sentences of at most `limit` tokens, and beginnings of that length, whose <eos> is left out.
    closed = [ids if ids[-1] == EOS else (*ids, EOS) for ids in sequences]
    sentences = Sentences.from_arrays(np.concatenate(closed), np.cumsum([len(ids) for ids in closed]))
    scored = {ids: -losses[: len(ids)].sum() for ids, (_, losses) in zip(sequences, sentence_losses(model, sentences, 64), strict=True)}
    assert scored == pytest.approx(sequences, abs=1e-9)


PROMPTS = [(EOS,), (EOS, 2, 5, 1, 1, 7), (EOS, 4), (EOS, 3, 3), (EOS, 4), (EOS, 8, 8, 8)]
STRATEGIES: dict[str, dict[str, object]] = {
    "greedy": {"strategy": "greedy"},
    "sample": {"strategy": "sample", "samples": 3, "temperature": 1.5, "top_k": 7, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.95},
    "without replacement": {"strategy": "sample", "samples": 5, "temperature": 1.5, "top_p": 0.95, "replacement": False},
    "beam": {"strategy": "beam", "beams": 4, "samples": 3},
    "beam by length": {"strategy": "beam", "beams": 4, "samples": 3, "length_penalty": 1.0},
    "constrained": {"strategy": "sample", "samples": 3, "no_repeat_ngram": 2, "min_tokens": 3, "banned": ["ab", "c"], "stop": ["dd"]},
    "constrained beam": {"strategy": "beam", "beams": 3, "samples": 3, "no_repeat_ngram": 2, "min_tokens": 3, "banned": ["ab"]},
}
every_strategy = pytest.mark.parametrize("settings", STRATEGIES.values(), ids=STRATEGIES.keys())
WORDS = spelled_as(".", "a", "b", "c", "d", " ", " a", "cd", "e")


def bits(generations: list[Generation]) -> list[tuple[Sequence, str, bool]]:
    return [(tuple(item.ids.tolist()), item.log_prob.hex(), item.finished) for item in generations]


@pytest.mark.parametrize(
    ("cell", "strategy"),
    [("lstm", name) for name in STRATEGIES] + [(cell, name) for cell in ("gru", "rnn", "mogrifier") for name in ("sample", "beam")],
)
def test_a_prompt_gives_the_same_bits_in_any_batch(cell: str, strategy: str) -> None:
    """Alone; with others, some of which end at once; in another order; with enough to need several blocks. In float32."""
    model = wild(models.build(config.Model(cell=cell, hidden=17), 9, 2), 7.0)
    settings = STRATEGIES[strategy] | {"max_tokens": 10}
    prompts = PROMPTS if cell == "lstm" else PROMPTS[:3]
    alone = {prompt: bits(run(model, [prompt], text=WORDS, **settings)[0]) for prompt in dict.fromkeys(prompts)}
    others = [(EOS, first, second) for first in range(1, 9) for second in (1, 7)]
    for batch in (prompts[::-1], [*others, *prompts]) if cell == "lstm" else ([*others, *prompts],):
        results = run(model, batch, text=WORDS, **settings)
        assert all(bits(items) == alone[prompt] for prompt, items in zip(batch, results, strict=True) if prompt in alone)
    assert len({len(item.ids) for items in results for item in items}) > 1  # rows that end at different times


@every_strategy
def test_log_prob_is_what_scoring_says(settings: dict[str, object]) -> None:
    model = tiny(vocabulary=9)
    for prompt, generations in zip(PROMPTS, run(model, PROMPTS, text=WORDS, max_tokens=15, **settings), strict=True):
        for item in generations:
            whole = np.append([*prompt[1:], *item.ids], EOS)
            _, losses = sentence_losses(model, Sentences.from_arrays(whole, np.array([len(whole)])), 64)[0]
            scored = -losses[len(prompt) - 1 : len(prompt) - 1 + len(item.ids)].sum()
            assert item.log_prob == pytest.approx(scored, abs=1e-9)
            stopped = "stop" in settings and "dd" in WORDS.decode(np.array(prompt), item.ids)
            assert item.finished == (item.ids[-1] == EOS or stopped)
            assert EOS not in item.ids[:-1]


@every_strategy
def test_without_an_end_all_have_as_many_tokens(settings: dict[str, object]) -> None:
    free = settings | {"stop": [], "no_repeat_ngram": 0, "banned": [], "stop_at_eos": False, "max_tokens": 11}
    for generations in run(tiny(vocabulary=9), PROMPTS, text=WORDS, **free):
        assert {(len(item.ids), item.finished) for item in generations} == {(11, False)}


def test_sentences_that_start_anew_are_independent() -> None:
    """With states zeroed after <eos>, log P of a run of sentences is the sum of those of the sentences."""
    model = tiny(seed=7, vocabulary=5)
    (items,) = run(model, [(EOS,)], fresh=True, strategy="sample", samples=8, temperature=2.0, max_tokens=20, stop_at_eos=False)
    assert sum(EOS in item.ids[:-1] for item in items) > 2
    for item in items:
        closed = item.ids if item.ids[-1] == EOS else np.append(item.ids, EOS)
        sentences = Sentences.from_arrays(closed, np.flatnonzero(closed == EOS) + 1)
        scored = np.concatenate([losses for _, losses in sentence_losses(model, sentences, 64)])
        assert item.log_prob == pytest.approx(-scored[: len(item.ids)].sum(), abs=1e-9)


@every_strategy
def test_weights_that_are_nan_are_an_error(settings: dict[str, object]) -> None:
    model = tiny()
    with torch.no_grad():
        model.projection.bias[2] = torch.nan
    with pytest.raises(PacklmError, match="not numbers"):
        run(model, [(EOS,)], text=WORDS, **settings)


@pytest.mark.parametrize("settings", [{"strategy": "sample"}, {"strategy": "sample", "replacement": False}, {"strategy": "beam"}])
def test_so_are_those_that_are_read_later(settings: dict[str, object]) -> None:
    model = models.build(config.Model(hidden=5, tied=False), 6, 1).double().eval()
    with torch.no_grad():
        model.embedding.weight[3] = torch.nan
    with pytest.raises(PacklmError, match="not numbers"):
        run(model, [(EOS,)], samples=6, beams=6, **settings)


def test_batches_hold_every_prompt_once_shortest_first_within_their_tokens() -> None:
    prompts = [np.zeros(length, np.int64) for length in (3, 1, 3, 9, 2, 1)]
    settings = config.Generate(strategy="beam", beams=2, max_tokens=4, batch_tokens=30)
    assert prompt_batches(prompts, settings) == [[1, 5], [4, 0], [2], [3]]  # 2 * (1 + 4) each, then 12, 14, 14, 26
    assert prompt_batches([], settings) == []

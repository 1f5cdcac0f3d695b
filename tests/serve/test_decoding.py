"""Greedy, random and beam search against a tiny model whose every sequence is enumerated."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from pipeline import config
from pipeline.config import Generate
from pipeline.errors import PacklmError
from serve import decoding
from serve.decoding import Generation
from serve.scoring import segment_scores
from tests.serve.conftest import wild
from train import model as models
from train.model import LanguageModel
from train.recurrence import State
from train.views import Sentences

EOS, VOCABULARY = 0, 4
Sequence = tuple[int, ...]


def tiny(cell: str = "lstm", seed: int = 1, vocabulary: int = VOCABULARY) -> LanguageModel:
    return wild(models.build(config.Model(cell=cell, hidden=5, layers=2), vocabulary, seed).double(), 12.0)


def chain(model: LanguageModel, ids: Sequence, state: State | None = None) -> tuple[torch.Tensor, State]:
    """log P(next) after ids read one by one, the plainest way."""
    state = state or model.recurrence.zero_state(1)
    for value in ids:
        log_probs, state = model.step(torch.tensor([value]), state)
    return log_probs[0], state


def enumerate_all(model: LanguageModel, prompt: Sequence, limit: int) -> dict[Sequence, float]:
    """log P of every continuation of at most `limit` tokens: those that end, and those of `limit` tokens that do not."""
    found: dict[Sequence, float] = {}

    def grow(ids: Sequence, total: float, log_probs: torch.Tensor, state: State) -> None:
        for value in range(model.vocab_size):
            longer, sum_ = (*ids, value), total + float(log_probs[value])
            if value == EOS or len(longer) == limit:
                found[longer] = sum_
            else:
                grow(longer, sum_, *chain(model, (value,), state))

    grow((), 0.0, *chain(model, prompt))
    return found


def run(model: LanguageModel, prompts: list[Sequence], seed: int = 1, fresh: bool = False, **settings: object) -> list[list[Generation]]:
    arrays = [np.array(ids, np.int64) for ids in prompts]
    return decoding.generate(model, arrays, Generate.model_validate(settings), seed, EOS, fresh)


def as_pairs(generations: list[Generation]) -> list[tuple[Sequence, float]]:
    return [(tuple(item.ids.tolist()), item.log_prob) for item in generations]


def sentence_losses(model: LanguageModel, sentences: Sentences, batch_tokens: int) -> list[tuple[int, np.ndarray]]:
    """(index, [M] nats of its tokens) of each sentence, from a zero state."""
    losses = segment_scores(model, sentences, batch_tokens)[0].losses
    return list(enumerate(np.split(losses, np.cumsum(sentences.lengths)[:-1])))


def test_the_probabilities_of_all_sequences_sum_to_one() -> None:
    model, limit = tiny(), 4
    found = enumerate_all(model, (EOS,), limit)
    assert math.fsum(map(math.exp, found.values())) == pytest.approx(1, abs=1e-12)
    # The same from scoring: sentences of at most `limit` tokens, and beginnings of that length, whose <eos> is left out.
    closed = [ids if ids[-1] == EOS else (*ids, EOS) for ids in found]
    sentences = Sentences.from_arrays(np.concatenate(closed), np.cumsum([len(ids) for ids in closed]))
    scored = {ids: -losses[: len(ids)].sum() for ids, (_, losses) in zip(found, sentence_losses(model, sentences, 64), strict=True)}
    assert scored == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_beam_as_wide_as_the_space_ranks_every_sequence(cell: str) -> None:
    model, prompts = tiny(cell), [(EOS,), (EOS, 2, 1), (EOS, 3)]
    width = VOCABULARY**4
    for prompt, generations in zip(prompts, run(model, prompts, strategy="beam", beams=width, samples=width, max_tokens=4), strict=True):
        expected = sorted(enumerate_all(model, prompt, 4).items(), key=lambda item: -item[1])
        assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
        assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)
        assert [item.finished for item in generations] == [ids[-1] == EOS for ids, _ in expected]


def plain_beam(model: LanguageModel, prompt: Sequence, width: int, limit: int) -> list[tuple[Sequence, float]]:
    """Beam search as one writes it down: all extensions of all hypotheses, sorted."""
    beam: list[tuple[Sequence, float]] = [((), 0.0)]
    for _ in range(limit):
        candidates = []
        for ids, total in beam:
            if ids and ids[-1] == EOS:
                candidates.append((ids, total))
            else:
                log_probs, _ = chain(model, prompt + ids)
                candidates += [((*ids, value), total + float(log_probs[value])) for value in range(model.vocab_size)]
        beam = sorted(candidates, key=lambda item: -item[1])[:width]
    return beam


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_a_narrow_beam_is_the_textbook_one(width: int) -> None:
    prompts = [(EOS,), (EOS, 1), (EOS, 3, 2, 2)]
    for seed in range(2):
        model = tiny(seed=seed, vocabulary=6)
        found = run(model, prompts, strategy="beam", beams=width, samples=width, max_tokens=12)
        for prompt, generations in zip(prompts, found, strict=True):
            expected = plain_beam(model, prompt, width, 12)
            assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
            assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)


@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_a_beam_of_one_is_greedy(stop_at_eos: bool) -> None:
    prompts = [(EOS,), (EOS, 2, 5, 1), (EOS, 4), (EOS, 3, 3)]
    for seed in range(4):
        model, settings = tiny(seed=seed, vocabulary=9), {"max_tokens": 25, "stop_at_eos": stop_at_eos}
        greedy, beam = (run(model, prompts, strategy=strategy, beams=1, **settings) for strategy in ("greedy", "beam"))
        assert [as_pairs(one)[0][0] for one in greedy] == [as_pairs(one)[0][0] for one in beam]
        assert [one[0].log_prob for one in greedy] == pytest.approx([one[0].log_prob for one in beam], abs=1e-9)
        assert [one[0].finished for one in greedy] == [one[0].finished for one in beam]


def test_greedy_takes_the_likeliest_token() -> None:
    model = tiny(vocabulary=9)
    (generation,) = run(model, [(EOS, 4, 2)], strategy="greedy", max_tokens=12)[0]
    read: Sequence = (EOS, 4, 2)
    for value in generation.ids.tolist():
        assert int(chain(model, read)[0].argmax()) == value
        read = (*read, value)


PROMPTS = [(EOS,), (EOS, 2, 5, 1, 1, 7), (EOS, 4), (EOS, 3, 3), (EOS, 4), (EOS, 8, 8, 8)]
STRATEGIES = [
    {"strategy": "greedy"},
    {"strategy": "sample", "samples": 3, "temperature": 1.5, "top_k": 7, "top_p": 0.95},
    {"strategy": "beam", "beams": 4, "samples": 3},
]


@pytest.mark.parametrize("settings", STRATEGIES, ids=lambda settings: str(settings["strategy"]))
@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_a_prompt_gives_the_same_alone_and_in_a_batch(settings: dict[str, object], stop_at_eos: bool) -> None:
    model = wild(models.build(config.Model(hidden=7), 9, 2), 10.0)  # float32, as in use
    together = run(model, PROMPTS, max_tokens=30, stop_at_eos=stop_at_eos, **settings)
    alone = [run(model, [prompt], max_tokens=30, stop_at_eos=stop_at_eos, **settings)[0] for prompt in PROMPTS]
    lengths = set()
    for one, other in zip(together, alone, strict=True):
        assert [ids for ids, _ in as_pairs(one)] == [ids for ids, _ in as_pairs(other)]
        assert [item.log_prob for item in one] == pytest.approx([item.log_prob for item in other], abs=1e-4, rel=1e-6)
        lengths |= {len(item.ids) for item in one}
    assert len(lengths) > 1 if stop_at_eos else lengths == {30}  # rows that end at different times


@pytest.mark.parametrize("settings", STRATEGIES, ids=lambda settings: str(settings["strategy"]))
def test_log_prob_is_what_scoring_says(settings: dict[str, object]) -> None:
    model = tiny(vocabulary=9)
    for prompt, generations in zip(PROMPTS, run(model, PROMPTS, max_tokens=15, **settings), strict=True):
        for item in generations:
            whole = np.append([*prompt[1:], *item.ids], EOS)
            _, losses = sentence_losses(model, Sentences.from_arrays(whole, np.array([len(whole)])), 64)[0]
            scored = -losses[len(prompt) - 1 : len(prompt) - 1 + len(item.ids)].sum()
            assert item.log_prob == pytest.approx(scored, abs=1e-9)
            assert item.finished == (item.ids[-1] == EOS)
            assert EOS not in item.ids[:-1]


def filtered(probabilities: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The distribution that is drawn from, written down without sorting tricks."""
    powered = probabilities ** (1 / temperature)
    powered[np.argsort(-powered)[top_k:]] = 0.0
    powered /= powered.sum()
    order = np.argsort(-powered)
    kept = order[: int(np.searchsorted(np.cumsum(powered[order]), top_p)) + 1]
    result = np.zeros_like(powered)
    result[kept] = powered[kept]
    return result / result.sum()


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 0, 1.0), (1.7, 3, 1.0), (1.3, 0, 0.7), (1.4, 5, 0.8)])
def test_samples_follow_the_filtered_distribution(temperature: float, top_k: int, top_p: float) -> None:
    model, draws = tiny(seed=5, vocabulary=6), 4000
    settings = {"strategy": "sample", "samples": draws, "temperature": temperature, "top_k": top_k, "top_p": top_p, "max_tokens": 2}
    counts = Counter(tuple(item.ids.tolist()) for item in run(model, [(EOS, 1)], **settings)[0])
    chances: dict[Sequence, float] = {}
    for first, chance in enumerate(filtered(chain(model, (EOS, 1))[0].exp().numpy(), temperature, top_k or 6, top_p)):
        if first == EOS:
            chances[(first,)] = chance
        else:
            second = filtered(chain(model, (EOS, 1, first))[0].exp().numpy(), temperature, top_k or 6, top_p)
            chances |= {(first, value): chance * other for value, other in enumerate(second)}
    possible = {ids: chance for ids, chance in chances.items() if chance > 0}
    assert set(counts) <= set(possible)
    common = [ids for ids, chance in possible.items() if chance * draws >= 5]
    statistic = sum((counts[ids] - possible[ids] * draws) ** 2 / (possible[ids] * draws) for ids in common)
    assert len(common) > 3
    assert statistic < len(common) + 4 * math.sqrt(2 * len(common))  # chi-square, 4 deviations above its mean


def test_the_largest_random_number_draws_a_possible_token() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25, 0.0]], dtype=torch.float64).log()
    for uniform, top_p, expected in ((1.0, 1.0, 2), (1 - 2**-53, 0.5, 0), (2**-54, 1.0, 0), (0.6, 1.0, 1)):
        assert decoding.draw(log_probs, torch.tensor([uniform]), 1.0, 0, top_p).tolist() == [expected]


def test_samples_come_likeliest_first_and_depend_on_the_seed() -> None:
    model = tiny(vocabulary=9)
    settings: dict[str, object] = {"strategy": "sample", "temperature": 2.0, "max_tokens": 10}
    (five,), (again,), (other,) = (run(model, [(EOS, 3)], seed, samples=5, **settings) for seed in (1, 1, 2))
    totals = [item.log_prob for item in five]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) > 1
    assert as_pairs(five) == as_pairs(again) != as_pairs(other)
    (three,) = run(model, [(EOS, 3)], 1, samples=3, **settings)
    assert {ids for ids, _ in as_pairs(three)} <= {ids for ids, _ in as_pairs(five)}


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


def test_an_overlong_prompt_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(vocabulary=9)
    whole = run(model, PROMPTS, strategy="greedy", max_tokens=8)
    monkeypatch.setattr(decoding, "READ_AT_ONCE", 2)
    pieces = run(model, PROMPTS, strategy="greedy", max_tokens=8)
    assert [as_pairs(one)[0][0] for one in whole] == [as_pairs(one)[0][0] for one in pieces]


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_weights_that_are_no_numbers_are_an_error(strategy: str) -> None:
    model = tiny()
    with torch.no_grad():
        model.projection.bias[2] = torch.nan
    with pytest.raises(PacklmError, match="not numbers"):
        run(model, [(EOS,)], strategy=strategy)


@pytest.mark.parametrize("strategy", ["sample", "beam"])
def test_so_are_those_that_show_on_the_way_only(strategy: str) -> None:
    model = models.build(config.Model(hidden=5, tied=False), 6, 1).double().eval()
    with torch.no_grad():
        model.embedding.weight[3] = torch.nan
    with pytest.raises(PacklmError, match="not numbers"):
        run(model, [(EOS,)], strategy=strategy, samples=6, beams=6)

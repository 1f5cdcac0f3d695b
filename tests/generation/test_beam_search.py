"""Beam search compared with enumeration, and with a plain implementation."""

from functools import cache

import numpy as np
import pytest

from packlm.generation.strategies.beam import length_normalized
from packlm.model.language_model import LanguageModel
from tests.generation.enumeration import EOS, VOCABULARY, Sequence, as_pairs, chain, enumerate_all, run, tiny


@pytest.mark.parametrize("rule", [{}, {"length_penalty": 0.0}], ids=["the default: mean log P", "log P"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_beam_as_wide_as_the_space_ranks_every_sequence(cell: str, rule: dict[str, float]) -> None:
    model, prompts = tiny(cell), [(EOS,), (EOS, 2, 1), (EOS, 3)]
    width = VOCABULARY**4
    results = run(model, prompts, strategy="beam", beams=width, samples=width, max_tokens=4, **rule)
    for prompt, generations in zip(prompts, results, strict=True):
        sequences = enumerate_all(model, prompt, 4).items()
        expected = sorted(sequences, key=lambda item: -item[1] / (1 if rule else len(item[0])))
        assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
        assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)
        assert [item.finished for item in generations] == [ids[-1] == EOS for ids, _ in expected]


def test_unless_told_otherwise_a_short_text_does_not_win_for_being_short() -> None:
    """log P falls with every token, so that the empty text is often the most likely one of all; its mean does not."""
    prompts, lengths = [(EOS,), (EOS, 2, 1), (EOS, 3)], {}
    for name, rule in (("default", {}), ("log P", {"length_penalty": 0.0})):
        results = [run(tiny("lstm", seed=seed), prompts, strategy="beam", beams=5, max_tokens=12, **rule) for seed in range(4)]
        lengths[name] = [len(best.ids) for result in results for best, *_ in result]
    assert sum(length == 1 for length in lengths["log P"]) > 2 * sum(length == 1 for length in lengths["default"])
    assert np.mean(lengths["default"]) > 2 * np.mean(lengths["log P"])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5])
def test_the_best_of_a_beam_as_wide_as_the_space_are_the_best_of_all(penalty: float) -> None:
    """Also with early stopping: with length normalization, the worse hypothesis now may be the better one in the end."""
    width, prompts = 3**4, [(EOS,), (EOS, 2, 1)]
    for seed in range(3):
        model = tiny(seed=seed, vocabulary=3)
        results = run(model, prompts, strategy="beam", beams=width, samples=5, max_tokens=5, length_penalty=penalty)
        for prompt, generations in zip(prompts, results, strict=True):
            sequences = enumerate_all(model, prompt, 5).items()
            expected = sorted(sequences, key=lambda item: -length_normalized(item[1], len(item[0]), penalty))[:5]
            assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
            assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)


@cache
def following(model: LanguageModel, ids: Sequence) -> list[float]:
    return [float(log_prob) for log_prob in chain(model, ids)[0]]


def plain_beam(model: LanguageModel, prompt: Sequence, width: int, limit: int, penalty: float) -> list[tuple[Sequence, float]]:
    """Beam search without early stopping: all extensions of all hypotheses, sorted; hypotheses that end are complete."""
    beam: list[tuple[Sequence, float]] = [((), 0.0)]
    ended: list[tuple[Sequence, float]] = []
    for _ in range(limit):
        candidates = []
        for ids, total in beam:
            candidates += [((*ids, value), total + log_prob) for value, log_prob in enumerate(following(model, prompt + ids))]
        best = sorted(candidates, key=lambda item: -item[1])[:width]
        ended += [item for item in best if item[0][-1] == EOS]
        beam = [item for item in best if item[0][-1] != EOS]
    return sorted([*ended, *beam], key=lambda item: -item[1] / len(item[0]) ** penalty)


MODELS = [tiny(seed=seed, vocabulary=5) for seed in range(2)]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_is_the_textbook_one(width: int, penalty: float) -> None:
    prompts = [(EOS,), (EOS, 1), (EOS, 3, 2, 2)]
    for model in MODELS:
        for samples in {1, width}:
            results = run(model, prompts, strategy="beam", beams=width, samples=samples, max_tokens=7, length_penalty=penalty)
            for prompt, generations in zip(prompts, results, strict=True):
                expected = plain_beam(model, prompt, width, 7, penalty)[:samples]
                assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
                assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)


def plain_diverse_beam(
    model: LanguageModel, prompt: Sequence, width: int, groups: int, diversity: float, limit: int, samples: int
) -> list[tuple[Sequence, float]]:  # fmt: skip
    """Vijayakumar et al. (2018), algorithm 1, without early stopping: the groups one after the other, hypothesis by hypothesis."""
    beams: list[list[tuple[Sequence, float]]] = [[((), 0.0)] for _ in range(groups)]
    ended: list[list[tuple[Sequence, float]]] = [[] for _ in range(groups)]
    for _ in range(limit):
        chosen: list[int] = []
        for group in range(groups):
            candidates = [
                ((*ids, value), total + log_prob)
                for ids, total in beams[group]
                for value, log_prob in enumerate(following(model, prompt + ids))
            ]
            best = sorted(candidates, key=lambda item: -(item[1] - diversity * chosen.count(item[0][-1])))[: width // groups]
            chosen += [ids[-1] for ids, _ in best]
            ended[group] += [item for item in best if item[0][-1] == EOS]
            beams[group] = [item for item in best if item[0][-1] != EOS]
    ranked = [
        sorted([*done, *beam], key=lambda item: -item[1] / len(item[0]))[: width // groups] for done, beam in zip(ended, beams, strict=True)
    ]
    found: dict[Sequence, float] = {}
    for rank in range(width):
        for one in ranked:
            if rank < len(one) and len(found) < samples:
                found.setdefault(*one[rank])
    return sorted(found.items(), key=lambda item: -item[1] / len(item[0]))


@pytest.mark.parametrize(("width", "groups"), [(4, 2), (6, 3), (3, 3), (6, 2)])
@pytest.mark.parametrize("diversity", [0.0, 0.7, 50.0])
def test_a_diverse_beam_is_the_plain_one(width: int, groups: int, diversity: float) -> None:
    prompts, limit = [(EOS,), (EOS, 1), (EOS, 3, 2, 2)], 5
    for seed in range(3):
        model = tiny(seed=seed, vocabulary=7)
        for samples in (groups, width):
            settings = {"beams": width, "beam_groups": groups, "diversity": diversity, "samples": samples, "max_tokens": limit}
            results = run(model, prompts, strategy="beam", **settings)
            for prompt, generations in zip(prompts, results, strict=True):
                expected = plain_diverse_beam(model, prompt, width, groups, diversity, limit, samples)
                assert [ids for ids, _ in as_pairs(generations)] == [ids for ids, _ in expected]
                assert [item.log_prob for item in generations] == pytest.approx([total for _, total in expected], abs=1e-9)


def test_groups_make_the_texts_of_a_beam_more_diverse() -> None:
    prompts = [(EOS,), (EOS, 2, 5, 1), (EOS, 4), (EOS, 3, 3)]
    distinct = {}
    for groups in (1, 3):
        first_tokens = [
            len({int(item.ids[0]) for item in items})
            for seed in range(4)
            for items in run(
                tiny(seed=seed, vocabulary=9), prompts, strategy="beam", beams=3, beam_groups=groups, samples=3, diversity=5.0, max_tokens=6
            )
        ]
        distinct[groups] = sum(first_tokens)
    assert distinct[3] > 1.5 * distinct[1]


@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_a_beam_of_one_is_greedy(stop_at_eos: bool) -> None:
    prompts = [(EOS,), (EOS, 2, 5, 1), (EOS, 4), (EOS, 3, 3)]
    for seed in range(4):
        model, settings = tiny(seed=seed, vocabulary=9), {"max_tokens": 25, "stop_at_eos": stop_at_eos}
        greedy, beam = (run(model, prompts, strategy=strategy, beams=1, **settings) for strategy in ("greedy", "beam"))
        assert [as_pairs(one)[0][0] for one in greedy] == [as_pairs(one)[0][0] for one in beam]
        assert [one[0].log_prob for one in greedy] == pytest.approx([one[0].log_prob for one in beam], abs=1e-9)
        assert [one[0].finished for one in greedy] == [one[0].finished for one in beam]

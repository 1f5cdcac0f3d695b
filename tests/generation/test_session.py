"""States step by step, and texts that are read piece by piece: bit for bit what reading everything at once gives."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from packlm import config
from packlm.base.errors import RequestError
from packlm.engine import Engine
from packlm.generation import session as sessions
from packlm.model import language_model as models
from packlm.model.cells import CELLS
from packlm.model.quantized import quantize
from tests.small_models import trained_on, wild

TEXT = "the cat sees a dog. Mr. Ümlaut eats under the tree.  a small naïve dog"


def equal(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def pieces(text: str, generator: random.Random) -> list[str]:
    cuts = sorted(generator.sample(range(len(text) + 1), 6))
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("segments", ["sentences", "rows", "streams"])
@pytest.mark.parametrize("kept", [1, 512])
def test_pieces_give_what_the_whole_gives(engine: Engine, segments: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEPT_STATES", kept)
    model = trained_on(engine, segments)
    for seed in range(5):
        session = model.session()
        for piece in pieces(TEXT, random.Random(seed)):
            session.feed(piece)
        (whole,) = model.read(TEXT)
        assert session.text == TEXT
        assert torch.equal(session.log_probs, whole.log_probs) and equal(session.state, whole.state)
        assert session.next(7) == model.next(TEXT, 7)
        for settings in (
            {"strategy": "greedy"},
            {"strategy": "sample", "samples": 3, "top_p": 0.9},
            {"strategy": "beam", "beams": 3, "stop": ["dog"]},
        ):
            assert session.generate(seed=4, max_tokens=9, **settings) == model.generate(TEXT, seed=4, max_tokens=9, **settings)[0]


def test_log_probabilities_are_those_of_the_tokens_read(engine: Engine) -> None:
    session = engine.session("the cat")
    ids, _ = engine.encode_prompt("the cat sees")
    state, expected = engine.states(), 0.0
    for before, id in itertools.pairwise(ids):
        step = engine.step([int(before)], state)
        state, expected = step.state, expected + float(step.log_probs[0, id].double())
    before = session.log_prob
    assert session.score(" sees") == pytest.approx(expected - before, rel=1e-12)
    assert (session.text, session.log_prob) == ("the cat", before), "scoring moves nothing"
    copy = session.copy()
    copy.feed(" sees")
    assert copy.log_prob == pytest.approx(expected, rel=1e-12) and session.log_prob == before
    scored = engine.score("the cat sees")[0]
    assert copy.log_prob == pytest.approx(scored.log_probs[:-1].sum(), rel=1e-5)
    with pytest.raises(RequestError, match="surrogate"):
        session.feed("\ud800")
    assert session.text == "the cat"


@pytest.mark.parametrize("residual", ["none", "project"])
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_layers_are_those_of_the_model(engine: Engine, cell: str, residual: str) -> None:
    settings = config.Model(cell=cell, layers=2, hidden=(6, 7), embedding=5, tied=False, residual=residual)
    model = wild(models.build(settings, engine.info.vocab_size, 1)).double()
    one = Engine(model, engine.info.model_copy(update={"model": settings}), engine.encoder, {})
    (reading,) = one.read("the cat sees")
    ids = torch.from_numpy(reading.ids)
    lengths = np.array([len(ids)])
    whole, final = model.layers(ids, lengths)
    for actual, expected in zip((*reading.layers, *reading.state), (*whole, *final), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    rows, expected_final = model.hidden(ids, lengths)
    assert torch.equal(whole[-1], rows) and equal(final, expected_final or ())
    assert torch.equal(whole[0], model.embedding(ids))
    torch.testing.assert_close(reading.log_probs, model.projection(whole[-1][-1:]).log_softmax(1)[0], rtol=1e-9, atol=1e-12)
    # The second layer reads what the first one put out, from the same state.
    after = model.recurrence.cell.step(
        one.stepper.layers[1], model.recurrence.cell.project(one.stepper.layers[1], whole[1][:1]), one.states()[1]
    )
    shortcut: Callable[[Tensor], Tensor] | None = one.stepper.shortcuts[1] if residual == "project" else None
    torch.testing.assert_close(reading.layers[2][:1], after[0] + (shortcut(whole[1][:1]) if shortcut else 0), rtol=1e-9, atol=1e-12)


def test_a_step_has_the_bits_of_reading_also_beside_others(engine: Engine) -> None:
    (reading,), others = engine.read("the cat"), engine.states(3)
    other_ids = [5, 7, 9]
    state = tuple(torch.cat([zero, more], 1) for zero, more in zip(engine.states(), others, strict=True))
    for number, id in enumerate(reading.ids):
        step = engine.step([int(id), *other_ids], state)
        state = step.state
        assert equal([layer[:1] for layer in step.layers], [layer[number : number + 1] for layer in reading.layers])
    assert torch.equal(step.log_probs[0], reading.log_probs) and equal([part[:, :1] for part in state], reading.state)


def test_a_text_is_read_after_a_state(engine: Engine) -> None:
    streams = trained_on(engine, "streams")
    (first,) = streams.read("the cat sees.")
    (second,) = streams.read("a dog.", first.state)
    (both,) = streams.read("the cat sees.\n\na dog.")
    assert torch.equal(second.log_probs, both.log_probs) and equal(second.state, both.state)
    assert [*first.tokens, *second.tokens] == both.tokens


def test_a_quantized_model_has_layers_too(engine: Engine) -> None:
    model = Engine(quantize(engine.model, "bf16"), engine.info, engine.encoder, {})
    (reading,) = model.read("the cat sees")
    assert [layer.shape for layer in reading.layers] == [layer.shape for layer in engine.read("the cat sees")[0].layers]
    session = model.session("the c")
    session.feed("at sees")
    assert torch.equal(session.log_probs, reading.log_probs)


@pytest.mark.parametrize(
    ("ids", "rows", "named"),
    [
        ([-1], 1, "ids: -1 to -1"),
        ([10**6], 1, "ids: 1000000"),
        ([], 0, "whole numbers"),
        ([0.5], 1, "whole numbers"),
        ([1, 2], 1, "state: shapes"),
    ],
)
def test_what_cannot_be_read_is_named(engine: Engine, ids: list[Any], rows: int, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        engine.step(ids, engine.states(rows))

"""Dynamic evaluation follows its equation: compared with a loop over windows in plain autograd, whatever the documents."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from packlm import config, dataset
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import dynamic_evaluation, measure
from packlm.evaluation.dynamic_evaluation import DynamicScorer, mean_squares
from packlm.evaluation.evaluate import ModelScorer, evaluate
from packlm.model.language_model import LanguageModel, build
from packlm.model.recurrence import State

ALONE = Ranks(0, 1, torch.device("cpu"))
VOCAB, WINDOW, LR, DECAY = 11, 4, 0.05, 0.3
IDS = np.where(np.arange(60) % 10 == 9, 0, np.random.default_rng(4).integers(1, VOCAB, 60))
OPENS = np.array([0, 10, 40])
VIEWS = Sentences.from_arrays(IDS, np.arange(10, 61, 10)), Stream.from_arrays(IDS, OPENS, eos=0)


def tiny(tied: bool = True, cutoffs: tuple[int, ...] = ()) -> LanguageModel:
    return build(config.Model(hidden=5, layers=2, tied=tied, cutoffs=cutoffs), VOCAB, seed=2).double()


def loss(model: LanguageModel, inputs: list[int], targets: list[int], state: State) -> tuple[Tensor, State]:
    """Mean loss of a window, token by token."""
    total = torch.zeros((), dtype=torch.float64)
    for id, target in zip(inputs, targets, strict=True):
        rows, state = model.hidden(torch.tensor([id]), np.ones(1, np.int64), state)
        total = total + F.cross_entropy(model.projection(rows), torch.tensor([target]))
    return total / len(targets), tuple(part.detach() for part in state)


def expected(squares: list[Tensor], texts: list[tuple[int, int]], *shape: Any) -> float:
    """The equation. `texts`: (begin, end) of each range that starts from a zero state and the trained weights."""
    total = 0.0
    for begin, end in texts:
        model = tiny(*shape)
        trained = [weight.detach().clone() for weight in model.parameters()]
        state = model.recurrence.zero_state(1)
        # Windows are cut every WINDOW tokens of the split, whatever the documents.
        edges = [begin, *(edge for edge in range(0, len(IDS), WINDOW) if begin < edge < end), end]
        for start, stop in itertools.pairwise(edges):
            inputs = [0 if start == 0 else int(IDS[start - 1]), *IDS[start : stop - 1].tolist()]
            mean, state = loss(model, inputs, IDS[start:stop].tolist(), state)
            total += mean.item() * (stop - start)
            mean.backward()
            roots = [square.sqrt() for square in squares]
            average = torch.cat([root.flatten() for root in roots]).mean()
            with torch.no_grad():
                for weight, root, initial in zip(model.parameters(), roots, trained, strict=True):
                    decay = (DECAY * root / average).clamp(max=1)
                    weight += decay * (initial - weight) - LR * weight.grad / (root + 1e-3)
                    weight.grad = None
    return total


def squares_by_loop(streams: int, *shape: Any) -> list[Tensor]:
    model = tiny(*shape)
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    bounds = [number * len(IDS) // streams for number in range(streams + 1)]
    steps = -(-max(np.diff(bounds)) // WINDOW)
    states = [model.recurrence.zero_state(1) for _ in range(streams)]
    for step in range(steps):
        losses, count = torch.zeros((), dtype=torch.float64), 0
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            start, stop = min(first + step * WINDOW, last), min(first + (step + 1) * WINDOW, last)
            if start < stop:
                inputs = [0 if start == 0 else int(IDS[start - 1]), *IDS[start : stop - 1].tolist()]
                mean, states[number] = loss(model, inputs, IDS[start:stop].tolist(), states[number])
                losses, count = losses + mean * (stop - start), count + stop - start
        gradients = torch.autograd.grad(losses / count, list(model.parameters()))
        total = [square + gradient**2 / steps for square, gradient in zip(total, gradients, strict=True)]
    return total


@pytest.mark.parametrize("shape", [(True,), (False,), (True, (3, 6)), (False, (3, 6))])
@pytest.mark.parametrize("context", ["documents", "streams"])
def test_updates_follow_the_equation(context: str, shape: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_evaluation, "_BLOCK_ROWS", 4)
    squares = squares_by_loop(3, *shape)
    model = tiny(*shape)
    before = [weight.detach().clone() for weight in model.parameters()]
    texts = [(0, 60)] if context == "streams" else [(0, 10), (10, 40), (40, 60)]
    result = evaluate(DynamicScorer(model, squares, LR, DECAY, WINDOW), *VIEWS, context, 1, 1000, ALONE)
    assert result.nll == pytest.approx(expected(squares, texts, *shape), rel=1e-9)
    assert abs(result.nll - evaluate(ModelScorer(tiny(*shape)), *VIEWS, context, 1, 1000, ALONE).nll) > 0.1
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_the_statistics_are_mean_squared_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_evaluation, "STATISTICS_STREAMS", 3)
    for ours, theirs in zip(mean_squares(tiny(), VIEWS[1], WINDOW), squares_by_loop(3), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


def test_it_needs_a_training_split(made: Callable[[str], Config], corpus) -> None:
    data = made("bpe")
    engine, settings = Engine.load(data.run.dir / "model"), config.Evaluate(dynamic_lr=0.001, context="documents")
    report = measure.measure_dataset(engine.model, engine.info, data.dataset.dir, dataset.read_manifest(data.dataset.dir), settings, ALONE)
    plain = settings.model_copy(update={"dynamic_lr": 0.0})
    assert report["adapted"] == "dynamic evaluation, lr 0.001, decay 0.02, window 20"
    assert (
        report["nll"]
        != measure.measure_dataset(engine.model, engine.info, data.dataset.dir, dataset.read_manifest(data.dataset.dir), plain, ALONE)[
            "nll"
        ]
    )
    with pytest.raises(RequestError, match="has a training split"):
        measure.measure_text(engine.model, engine.info, engine.encoder, [str(corpus)], settings, ALONE)

"""The neural cache follows its equation, token by token, whatever the windows."""

import math

import numpy as np
import pytest
import torch

from packlm import config
from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation.details import DetailedScorer, by_token
from packlm.evaluation.evaluate import ModelScorer, evaluate
from packlm.interpolation.cache import CacheComponent
from packlm.interpolation.model import InterpolatedModel
from packlm.model.language_model import build
from tests.small_models import wild

ALONE = Ranks(0, 1, torch.device("cpu"))
VOCAB, SIZE, THETA, LAMBDA = 11, 6, 0.7, 0.3
GENERATOR = np.random.default_rng(4)
IDS = np.where(np.arange(90) % 9 == 8, 0, GENERATOR.integers(1, VOCAB, 90))
OPENS = np.array([0, 27, 36, 81])
VIEWS = Sentences.from_arrays(IDS, np.arange(9, 91, 9)), Stream.from_arrays(IDS, OPENS, eos=0)
MODEL = wild(build(config.Model(hidden=6), VOCAB, seed=2), 4.0).double()
CACHED = InterpolatedModel([MODEL], [CacheComponent(SIZE, THETA, VOCAB)], [1 - LAMBDA, LAMBDA])


def probabilities(targets: np.ndarray, before: int) -> list[list[float]]:
    """The equation, in floats: [L][V] of a text read from a zero state after the id `before`."""
    state, cache, rows_of_probabilities = MODEL.recurrence.zero_state(1), [], []
    for target in targets.tolist():
        with torch.inference_mode():
            rows, state = MODEL.hidden(torch.tensor([before]), np.ones(1, np.int64), state)
            model_probabilities = MODEL.projection(rows)[0].softmax(0).tolist()
        weights = [math.exp(THETA * float(rows[0] @ key)) for key, _ in cache[-SIZE:]]
        mixed = [(1 - LAMBDA) * p if cache else p for p in model_probabilities]
        for weight, (_, follower) in zip(weights, cache[-SIZE:], strict=True):
            mixed[follower] += LAMBDA * weight / sum(weights)
        rows_of_probabilities.append(mixed)
        cache.append((rows[0], target))
        before = target
    return rows_of_probabilities


def texts(context: str) -> list[tuple[np.ndarray, int]]:
    """The ranges that are read from a zero state, and the id before each."""
    if context == "documents":
        return [(part, 0) for part in np.split(IDS, OPENS[1:])]
    return [(IDS[:45], 0), (IDS[45:], int(IDS[44]))]


@pytest.mark.parametrize("batch_tokens", [4, 10, 1000])
@pytest.mark.parametrize(("context", "streams"), [("documents", 1), ("streams", 2)])
def test_every_token_has_the_probability_of_the_equation(context: str, streams: int, batch_tokens: int) -> None:
    scorer = DetailedScorer(ModelScorer(CACHED), {"token": by_token(VOCAB, 0, None, None)})
    result = evaluate(scorer, *VIEWS, context, streams, batch_tokens, ALONE)
    rows = [
        (mixed, target) for part, before in texts(context) for mixed, target in zip(probabilities(part, before), part.tolist(), strict=True)
    ]
    assert result.nll == pytest.approx(sum(-math.log(mixed[target]) for mixed, target in rows), rel=1e-9)
    most_likely = sum(mixed[target] == max(mixed) for mixed, target in rows)
    assert scorer.sums(ALONE)["token"].top_1.sum() == most_likely
    assert abs(result.nll - evaluate(ModelScorer(MODEL), *VIEWS, context, streams, batch_tokens, ALONE).nll) > 0.1


def test_the_probabilities_sum_to_one_and_the_entropy_is_theirs() -> None:
    targets = IDS[:20]
    inputs, everything, length = np.concatenate([[0], targets[:-1]]), probabilities(targets, 0), np.array([20])
    cached = ModelScorer(CACHED)
    zero = np.zeros(1, np.int64)
    scores, _ = cached.scores(Segments(inputs, targets, length, zero, final_segments=zero), cached.zero_state(1))
    for mixed, entropy in zip(everything, scores.entropies.tolist(), strict=True):
        assert sum(mixed) == pytest.approx(1)
        assert entropy == pytest.approx(-sum(p * math.log(p) for p in mixed), rel=1e-9)


def test_a_sentence_by_itself_has_nothing_to_remember(engine: Engine, corpus) -> None:
    from packlm.evaluation import measure

    settings = config.Evaluate(cache=5, context="sentences")
    with pytest.raises(RequestError, match="--context documents or streams"):
        measure.measure_text(engine.model, engine.info, engine.encoder, [str(corpus)], settings, ALONE)

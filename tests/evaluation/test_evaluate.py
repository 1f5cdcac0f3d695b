"""The loss of a split is that of a plain loop over its targets, whatever the batch size and the number of ranks."""

import math

import numpy as np
import pytest
import torch

from packlm import config, distributed
from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences, Stream
from packlm.evaluation.evaluate import ModelScorer, evaluate
from packlm.model.language_model import LanguageModel, build
from tests.random_dataset import random_data  # noqa: F401
from tests.ranks import run_on_ranks
from tests.reference import one_by_one, one_segment

ALONE = distributed.Ranks(0, 1, torch.device("cpu"))
CONTEXTS = (("sentences", 1), ("documents", 1), ("streams", 1), ("streams", 3))


def model() -> LanguageModel:
    return build(config.Model(hidden=6, cell="lstm"), 17, seed=3).double()


def plain(model: LanguageModel, segments: list[np.ndarray]) -> float:
    """Each segment by itself from a zero state, after `<eos>`."""
    total = 0.0
    for targets in segments:
        batch = one_segment(np.concatenate([[0], targets[:-1]]), targets)
        total += one_by_one(model, batch, model.recurrence.zero_state(1))[0].item()
    return total


@pytest.fixture(scope="module")
def views(random_data):
    return Sentences.open(*random_data, "validation"), Stream.open(*random_data, "validation")


def expected(views, context: str, streams: int = 1) -> float:
    sentences, stream = views
    ids = stream.read(0, len(stream))[1]
    if context == "sentences":
        return plain(model(), [sentences.targets(index) for index in range(len(sentences))])
    if context == "documents":
        return plain(model(), np.split(ids, stream.opens[1:]))
    # A later stream begins after the id before it, not after <eos>.
    total = 0.0
    for part in range(streams):
        start, stop = part * len(ids) // streams, (part + 1) * len(ids) // streams
        inputs, targets = stream.read(start, stop)
        batch = one_segment(inputs, targets)
        total += one_by_one(model(), batch, model().recurrence.zero_state(1))[0].item()
    return total


@pytest.mark.parametrize("batch_tokens", [1, 7, 50, 10_000])
@pytest.mark.parametrize(("context", "streams"), CONTEXTS)
def test_a_split_scores_what_a_plain_loop_finds(random_data, views, context, streams, batch_tokens):
    result = evaluate(ModelScorer(model()), *views, context, streams, batch_tokens, ALONE)
    assert result.tokens == random_data.manifest.split("validation").tokens
    assert result.nll == pytest.approx(expected(views, context, streams), rel=1e-12)
    assert result.perplexity == pytest.approx(math.exp(result.nll / result.tokens))


def evaluate_on_ranks(random_data, out) -> None:
    with distributed.start("cpu") as ranks:
        views = Sentences.open(*random_data, "validation"), Stream.open(*random_data, "validation")
        losses = [evaluate(ModelScorer(model()), *views, *context, 20, ranks).nll for context in CONTEXTS]
        if ranks.first:
            np.save(out, losses)


def test_three_ranks_compute_the_same(random_data, views, tmp_path):
    run_on_ranks(3, evaluate_on_ranks, random_data, tmp_path / "losses.npy")
    losses = [expected(views, *context) for context in CONTEXTS]
    assert np.load(tmp_path / "losses.npy").tolist() == pytest.approx(losses, rel=1e-12)


def test_the_contexts_differ(views):
    scores = {context: expected(views, context) for context in ("sentences", "documents", "streams")}
    assert len(set(scores.values())) == 3


def test_a_score_that_is_not_finite_is_an_error(views):
    broken = model()
    broken.projection.bias.data[:] = float("inf")
    with pytest.raises(PacklmError, match="score is nan"):
        evaluate(ModelScorer(broken), *views, "sentences", 1, 100, ALONE)

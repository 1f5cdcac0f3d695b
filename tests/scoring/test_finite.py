"""A model whose numbers are not finite, or have no perplexity, gives no result on any path, and the error names model and data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm import dataset
from packlm.config import Config, Evaluate
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from packlm.model.finite import NotFinite, perplexity
from packlm.scoring import context
from packlm.scoring.sentences import segment_scores
from serve.generate.summary import Summary

ALONE = Ranks(0, 1, torch.device("cpu"))
BAD = [torch.nan, torch.inf, 1e30]
"""Values of a bias; with the last one every loss is finite, but too large for a perplexity."""


@contextmanager
def spoiled(engine: Engine, value: float) -> Iterator[None]:
    bias = engine.model.projection.bias
    original = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[5] = value
        vars(engine).pop("stepper", None)
        yield
    finally:
        with torch.no_grad():
            bias.copy_(original)
        vars(engine).pop("stepper", None)


@pytest.mark.parametrize("value", BAD)
def test_an_evaluation_names_model_and_data(made: Callable[[str], Config], engine: Engine, tmp_path: Path, value: float) -> None:
    config = made("bpe")
    folder, manifest = config.dataset.dir, dataset.read_manifest(config.dataset.dir)
    (tmp_path / "a.txt").write_text("the cat\na dog\n")
    with spoiled(engine, value):
        with pytest.raises(NotFinite, match=rf"tiny-bpe on validation of {folder}: .*(score is nan|no finite perplexity)"):
            measure.measure_dataset(engine.model, engine.info, folder, manifest, Evaluate(split="validation"), ALONE)
        with pytest.raises(NotFinite, match=rf"tiny-bpe on {tmp_path}: "):
            measure.measure_text(engine.model, engine.info, engine.encoder, [str(tmp_path)], Evaluate(), ALONE)
        with pytest.raises(NotFinite):
            engine.perplexity(["the cat"])


@pytest.mark.parametrize("value", BAD[:2])
def test_scores_and_generations_have_no_such_number(engine: Engine, value: float) -> None:
    segments = Sentences.from_arrays(np.array([7, engine.encoder.eos]), np.array([2]))
    with spoiled(engine, value):
        for function in (
            lambda: engine.score(["the cat"]), lambda: engine.next("the"), lambda: engine.generate(["the"]),
            lambda: context.log_probs(engine.model, engine.encoder, [((), "the cat")], 100),
            lambda: segment_scores(engine.model, segments, 9),
        ):  # fmt: skip
            with pytest.raises(NotFinite):
                function()


def test_a_sentence_without_a_perplexity_is_named(engine: Engine) -> None:
    with spoiled(engine, 1e30):
        (score,) = engine.score(["the cat"])
        with pytest.raises(NotFinite, match=r"'the cat': a mean loss of 1e\+30 nats has no finite perplexity"):
            str(score.perplexity)


def test_surprisals_stay_finite_where_the_ends_of_words_have_no_probability(engine: Engine) -> None:
    """The probabilities of all tokens that open a word underflow in float32; one of them comes nevertheless."""
    opens = torch.from_numpy(engine.encoder.opens_word)
    bias = engine.model.projection.bias
    original = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[opens] -= 400
        (score,) = engine.score(["the cat sees"])
    finally:
        with torch.no_grad():
            bias.copy_(original)
    assert np.isfinite(score.word_surprisals).all() and np.isfinite(score.end_surprisal)
    assert score.word_surprisals.sum() + score.end_surprisal == pytest.approx(score.surprisals.sum())


@pytest.mark.parametrize("loss", [torch.nan, torch.inf, -torch.inf, 700.0, 1e29])
def test_no_perplexity_is_infinite(loss: float) -> None:
    with pytest.raises(NotFinite, match="no finite perplexity"):
        perplexity(loss)
    summary = Summary()
    summary.add({"generations": [{"finished": True, "tokens": 1, "log_prob": -loss, "text": "a"}]})
    with pytest.raises(NotFinite):
        summary.values()

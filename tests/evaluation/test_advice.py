"""Baselines have the context of the model; a model that loses to n-grams is told three things to try."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from packlm import dataset
from packlm.config import Config, Evaluate, Model
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure, reports
from packlm.evaluation.advice import advice
from packlm.interpolation.kneser_ney import kneser_ney

ALONE = Ranks(0, 1, torch.device("cpu"))
LARGE = 10**7


def measured(config: Config, context: str) -> dict[str, object]:
    engine = Engine.load(config.run.dir / "model")
    manifest = dataset.read_manifest(config.dataset.dir)
    return measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, manifest, Evaluate.model_validate({"context": context}), ALONE
    )


@pytest.mark.parametrize("context", ["documents", "streams"])
def test_ngrams_see_what_the_model_sees(made: Callable[[str], Config], context: str) -> None:
    config = made("word")
    folder, manifest = config.dataset.dir, dataset.read_manifest(config.dataset.dir)
    ids, ends = {}, {}
    for split in ("train", "validation"):
        view = Sentences.open(folder, manifest, split)
        ids[split] = np.concatenate([view.targets(index) for index in range(len(view))])
        opens = Stream.open(folder, manifest, split).opens.tolist()
        ends[split] = np.array([*(opens[1:] if context == "documents" else []), len(ids[split])])
    expected = -kneser_ney(ids["train"], ends["train"], manifest.vocab_size).log_probs(ids["validation"], ends["validation"]).mean()
    report = measured(config, context)
    assert report["baselines"]["context"] == context  # type: ignore[index]
    assert report["baselines"]["kneser_ney_5"]["loss_per_token"] == pytest.approx(expected)  # type: ignore[index]
    assert f"per token, context: {context}" in reports.table(report)


def test_the_report_of_a_model_with_random_weights_says_what_to_try(
    made: Callable[[str], Config], caplog: pytest.LogCaptureFixture
) -> None:
    report = measured(made("bpe"), "documents")
    sentence = report["baselines"]["advice"]  # type: ignore[index]
    assert sentence.startswith("the model loses to Kneser-Ney 5-grams, ") and "it has not learned its training text either" in sentence
    assert "train.epochs" in sentence and "model.hidden = 18" in sentence and "tokenizer.vocab_size = 300" in sentence
    assert sentence in reports.table(report) and sentence in caplog.text


def test_the_advice_follows_what_is_known() -> None:
    model = Model(hidden=100, dropout=0.1)
    assert advice(4.0, 4.01, 1.0, model, 1_000, LARGE) is None
    by_heart = str(advice(4.2, 4.0, 2.0, model, 1_000, LARGE))
    assert "by heart (perplexity 7.4 there)" in by_heart
    assert "model.dropout = 0.4" in by_heart and "model.layers = 1" in by_heart and "fewer epochs" in by_heart
    one_layer = str(advice(4.2, 4.0, 2.0, model.model_copy(update={"layers": 1, "dropout": 0.5}), 10_000, 90_000))
    assert "model.dropout = 0.65" in one_layer and "model.hidden = 50" in one_layer
    assert "tokenizer.vocab_size = 1500; now 10000" in one_layer and "fewer epochs" not in one_layer
    unlearned = str(advice(4.2, 4.0, 4.1, model, 1_000, LARGE))
    assert "more epochs" in unlearned and "model.hidden = 150" in unlearned and "train.lr" in unlearned
    assert "not learned its training text either" in str(advice(5.0, 4.5, 4.6, model, 1_000, LARGE))  # 200 steps of the quickstart
    assert not any("\n" in text for text in (by_heart, one_layer, unlearned))

"""Reports: one set of numbers from a dataset and from the text itself, each as it is defined."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config, Evaluate
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure, reports
from packlm.evaluation.evaluate import Result
from packlm.evaluation.reports import TextCounts
from packlm.interpolation.kneser_ney import kneser_ney

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
@pytest.mark.parametrize("context", ["sentences", "documents", "streams"])
def test_text_and_dataset_give_the_same_numbers(made: Callable[[str], Config], corpus: Path, kind: str, context: str) -> None:
    config = made(kind)
    engine, settings = Engine.load(config.run.dir / "model"), Evaluate.model_validate({"context": context, "streams": 2})
    from_dataset = measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), settings, ALONE
    )
    from_text, counts = measure.measure_text(engine.model, engine.info, engine.encoder, [str(corpus / "validation")], settings, ALONE)
    different = {"data", "split", "data_digest", "baselines", "by_sentence_length", "by_token", "by_document", "interval"}
    for name in from_dataset.keys() - different:
        expected = from_dataset[name]
        assert from_text[name] == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
    assert from_text["interval"]["perplexity"] == pytest.approx(from_dataset["interval"]["perplexity"], rel=1e-6)
    for ours, theirs in zip(from_text["by_sentence_length"], from_dataset["by_sentence_length"], strict=True):
        assert ours.pop("group") == theirs["group"] and ours == pytest.approx({name: theirs[name] for name in ours}, rel=1e-6)
    for end in ("easiest", "hardest"):
        names = [[Path(row["document"]).name for row in report["by_document"][end]] for report in (from_text, from_dataset)]
        assert names[0] == names[1] and len(set(names[0])) == 5
    assert counts["lines dropped by '\\\\.START'"] == 5
    assert from_dataset["tokens"] == dataset.read_manifest(config.dataset.dir).split("validation").tokens
    assert (from_dataset["bits_per_byte"] is None) == (kind != "bpe")
    assert (from_dataset["unknown_rate"] > 0) == (kind != "bpe")
    assert reports.table(from_dataset)


def test_the_numbers_are_what_they_are_called(made: Callable[[str], Config], corpus: Path) -> None:
    config = made("bpe")
    engine = Engine.load(config.run.dir / "model")
    report = measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), config.evaluate, ALONE
    )
    texts = [path.read_text(encoding="utf-8").removeprefix(".START\n") for path in sorted((corpus / "validation").iterdir())]
    sentences = [line for text in texts for line in text.split("\n") if line.strip()]
    scores = engine.score(sentences)
    nll, tokens = -sum(score.log_prob for score in scores), sum(len(score.tokens) for score in scores)
    words, size = sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts)
    assert (report["tokens"], report["words"], report["bytes"], report["sentences"]) == (tokens, words, size, len(sentences))
    assert report["nll"] == pytest.approx(nll, rel=1e-6)
    assert report["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-6)
    assert report["perplexity_per_word"] == pytest.approx(math.exp(nll / (words + len(sentences))), rel=1e-6)
    assert report["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-6)
    assert engine.perplexity(texts) == pytest.approx(report["perplexity"], rel=1e-6)


def test_baselines_are_computed_on_the_same_tokens(made: Callable[[str], Config]) -> None:
    config = made("word")
    engine, manifest = Engine.load(config.run.dir / "model"), dataset.read_manifest(config.dataset.dir)
    report = measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), config.evaluate, ALONE
    )
    training, measured = (Sentences.open(config.dataset.dir, manifest, split) for split in ("train", "validation"))
    known, ids = (np.concatenate([view.targets(index) for index in range(len(view))]).tolist() for view in (training, measured))
    frequencies = [(known.count(id) + 1) / (len(known) + manifest.vocab_size) for id in ids]
    baselines = report["baselines"]
    assert baselines["uniform"]["perplexity"] == pytest.approx(manifest.vocab_size) and baselines["training_tokens"] == len(known)
    assert baselines["unigram"]["loss_per_token"] == pytest.approx(-sum(map(math.log, frequencies)) / len(ids))
    ngrams = kneser_ney(np.array(known), np.cumsum(training.lengths), manifest.vocab_size)
    expected = ngrams.log_probs(np.array(ids), np.cumsum(measured.lengths))
    assert baselines["kneser_ney_5"]["loss_per_token"] == pytest.approx(-expected.mean()) and baselines["context"] == "sentences"
    assert f"{baselines['kneser_ney_5']['perplexity']:,.1f} Kneser-Ney 5-grams" in reports.table(report)
    texts = [engine.encoder.decode(measured.targets(index)[:-1]) for index in range(len(measured))]
    model = np.exp(np.concatenate([score.log_probs for score in engine.score(texts)]))
    halves, probabilities = np.array_split(np.arange(len(ids)), [len(ids) // 2]), np.exp(expected)
    mixtures = [
        max(np.arange(1, 20) / 20, key=lambda weight, half=half: np.log(weight * model + (1 - weight) * probabilities)[half].sum())
        for half in halves
    ]
    losses = [
        -np.log(weight * model + (1 - weight) * probabilities)[half].sum() for half, weight in zip(halves, mixtures[::-1], strict=True)
    ]
    assert baselines["interpolated"]["loss_per_token"] == pytest.approx(sum(losses) / len(ids), rel=1e-6)
    assert baselines["interpolated"]["weight"] == pytest.approx(sum(mixtures) / 2)
    assert f"interpolated    {baselines['interpolated']['perplexity']:.2f} per token" in reports.table(report)
    quiet = config.evaluate.model_copy(update={"baselines": False})
    without = measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), quiet, ALONE
    )
    assert "baselines" not in without and without["nll"] == report["nll"]


def test_a_dataset_of_another_tokenizer_is_refused(made: Callable[[str], Config]) -> None:
    engine, other = Engine.load(made("bpe").run.dir / "model"), made("word").dataset.dir
    theirs = dataset.read_manifest(other).digests["tokenizer"]
    with pytest.raises(RequestError, match=f"{theirs[:16]}.*{engine.info.tokenizer[:16]}"):
        measure.measure_dataset(engine.model, engine.info, other, dataset.read_manifest(other), Evaluate(), ALONE)


def test_a_missing_split_and_a_missing_text_are_named(made: Callable[[str], Config], tmp_path: Path) -> None:
    config = made("bpe")
    engine = Engine.load(config.run.dir / "model")
    with pytest.raises(RequestError, match="no split 'test'"):
        measure.measure_dataset(
            engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), Evaluate(split="test"), ALONE
        )
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(RequestError, match="no text"):
        measure.measure_text(engine.model, engine.info, engine.encoder, [str(tmp_path)], Evaluate(), ALONE)


def test_a_report_of_other_tokens_than_counted_is_an_error() -> None:
    measured = TextCounts(1, 2, 10, 8, 40, 0, True)
    assert reports.report(Result(20.0, 10), measured, {})["loss_per_word"] == 2.0
    with pytest.raises(PacklmError, match="9 of 10 tokens were scored"):
        reports.report(Result(20.0, 9), measured, {})
    for nll in (np.inf, np.nan, 1e6):
        with pytest.raises(PacklmError, match="no finite perplexity"):
            reports.report(Result(nll, 10), replace(measured), {})

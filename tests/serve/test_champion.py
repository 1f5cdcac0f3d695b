"""A new version becomes champion only by being better than the current one, both measured now; no comparison, no change."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from packlm import dataset, tracking
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.engine import Engine
from packlm.model import folder as model_folder
from packlm.text.encoder import Encoder
from packlm.tracking.run_files import Comparison, EvaluationReport
from serve.registry import champion, original_text
from tests.small_models import tokenizer_files, write_model


class Registry(tracking.Recorder):
    """A registry in memory that answers which version is the champion, and keeps the one that becomes it."""

    def __init__(self, current: str | None):
        super().__init__()
        self.current, self.answers, self.logged = current, True, dict[str, float]()

    def champion(self, name: str) -> str | None:
        return self.current

    def set_champion(self, name: str, version: str) -> bool:
        if self.answers:
            self.current = version
        return self.answers

    def metrics(self, values: Any, step: int = 0) -> None:
        self.logged |= values


@pytest.fixture
def best(made: Callable[[str], Config], tmp_path: Path) -> Path:
    """The model of `engine` with smaller weights, which is better: the other's are random and large."""
    return saved(made("bpe"), tmp_path / "best", 0.01)


def saved(config: Config, folder: Path, scale: float) -> Path:
    model, _ = model_folder.load(config.run.dir / "model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    values = files.read_json(config.run.dir / "model" / "config.json")
    del values["digest"]
    model_folder.save(folder, model_folder.weights_of(model), values, config.generate, tokenizer_files(config.run.dir / "model"))
    return folder


def contest(config: Config, *arguments: Any) -> Comparison | None:
    engine, *others = arguments
    return champion.contest(config, engine, dataset.read_manifest(config.dataset.dir), *others)


def set_champion_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(tracking.models, "_download", lambda address, store: folder)


def test_the_better_version_becomes_champion_and_the_worse_does_not(
    made: Callable[[str], Config], engine: Engine, best: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, registry = made("bpe"), Registry("1")
    set_champion_folder(monkeypatch, config.run.dir / "model")
    better = contest(config, Engine.load(best), "2", {}, registry)
    assert better and better.won and registry.current == "2" and better.by == "perplexity"
    set_champion_folder(monkeypatch, best)
    worse = contest(config, engine, "3", {}, registry)
    assert worse and not worse.won and registry.current == "2"
    assert (worse.new, worse.old) == (better.old, better.new)  # each was measured once as the new one and once as the champion
    equal = {"validation": EvaluationReport.model_construct(perplexity=worse.old)}
    not_better = contest(config, Engine.load(best), "4", equal, registry)
    assert not_better and not not_better.won
    into = config.model_copy(update={"run": config.run.model_copy(update={"dir": tmp_path})})
    champion.write(worse, into, registry)
    assert json.loads((tmp_path / "evaluate" / "champion.json").read_text())["reason"] == worse.reason
    assert registry.logged == {"champion/perplexity_new": worse.new, "champion/perplexity_old": worse.old, "champion/won": False}


def test_the_first_version_becomes_champion_without_a_comparison(made: Callable[[str], Config], engine: Engine) -> None:
    registry = Registry("")
    comparison = contest(made("bpe"), engine, "1", {}, registry)
    assert comparison and comparison.won and comparison.by is None and registry.current == "1"
    again = contest(made("bpe"), engine, "1", {}, registry)
    assert again and not again.won and again.reason == "version 1 is the champion already"


def test_other_tokenizers_are_compared_by_bits_per_byte_of_the_text(
    made: Callable[[str], Config], engine: Engine, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = made("bpe")
    other = config.model_copy(
        update={
            "tokenizer": config.tokenizer.model_copy(update={"vocab_size": 290}),
            "dataset": config.dataset.model_copy(update={"dir": tmp_path / "dataset"}),
            "run": config.run.model_copy(update={"dir": tmp_path / "run"}),
        }
    )
    write_model(other)
    set_champion_folder(monkeypatch, other.run.dir / "model")
    comparison = contest(config, engine, "2", {}, Registry("1"))
    assert comparison and comparison.by == "bits_per_byte"
    files = sorted((corpus / "validation").iterdir())
    lines = [line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines() if line != ".START"]
    size = dataset.read_manifest(config.dataset.dir).split("validation").bytes
    for measured, folder in ((comparison.new, config.run.dir), (comparison.old, other.run.dir)):
        total = sum(score.log_prob for score in Engine.load(folder / "model").score([line for line in lines if line]))
        assert measured == pytest.approx(-total / math.log(2) / size, rel=1e-6)


def test_models_that_cannot_be_compared_change_nothing_and_the_reason_is_logged(
    made: Callable[[str], Config], engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("packlm").propagate = True
    caplog.set_level(logging.INFO, logger="packlm")
    config, registry = made("bpe"), Registry("1")
    set_champion_folder(monkeypatch, made("word").run.dir / "model")
    lossy = contest(config, engine, "2", {}, registry)
    assert lossy and not lossy.won and "version 1 stays, not compared with version 2: their tokenizers differ" in lossy.reason
    (made("word").run.dir / "nothing").mkdir()
    set_champion_folder(monkeypatch, made("word").run.dir / "nothing")
    unreadable = contest(config, engine, "2", {}, registry)
    assert unreadable and "no model here" in unreadable.reason
    assert registry.current == "1"
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["models", "models"]  # one line each


def test_a_registry_that_does_not_answer_decides_nothing(
    made: Callable[[str], Config], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Path:
        raise PacklmError("the store did not hand it out")

    assert contest(made("bpe"), engine, "2", {}, Registry(None)) is None
    monkeypatch.setattr(tracking.models, "_download", down)
    assert contest(made("bpe"), engine, "2", {}, Registry("1")) is None
    registry = Registry("")
    registry.answers = False
    assert contest(made("bpe"), engine, "2", {}, registry) is None


def test_documents_are_restored_exactly(made: Callable[[str], Config], corpus: Path) -> None:
    config = made("bpe")
    manifest = dataset.read_manifest(config.dataset.dir)
    blocks = original_text.blocks(config.dataset.dir, manifest, "train", Encoder.load(config.dataset.dir))
    documents = [pair for block in blocks for pair in block]
    texts = {path.name: path.read_text(encoding="utf-8").replace(".START\n", "") for path in (corpus / "train").iterdir()}
    assert {Path(name).name: text for name, text in documents} == texts
    assert len(documents) == manifest.split("train").documents

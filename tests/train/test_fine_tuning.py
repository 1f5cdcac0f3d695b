"""Fine-tuning: what is decided by the model that is continued, and what comes of it if training only harms."""

import math
from pathlib import Path
from typing import Any

import pytest

from packlm import config, fine_tuning
from packlm.base import files, json_lines
from packlm.base.errors import PacklmError, RequestError
from packlm.evaluation.evaluate import Result, Validation
from packlm.model import folder as model_folder
from tests.train.test_training import metrics
from train import checkpoint, stage
from train.progress.metrics import MetricLine
from train.trainer import Trainer

BASE = {"segments": "streams", "streams": 4, "window": 5, "reset": "none", "epochs": 9, "max_steps": 6, "lr": 0.02}
COMMON = {"device": "cpu", "samples": 0, "validate_every": 3, "log_every": 1}


def settings(data: Path, run: Path, model: dict[str, Any], train: dict[str, Any]) -> config.Config:
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": model, "train": COMMON | train
    })  # fmt: skip


@pytest.fixture(scope="module")
def base(random_data, tmp_path_factory):
    """The folder of a model that is not of the default shape."""
    run = tmp_path_factory.mktemp("base")
    shape = {"cell": "gru", "layers": 1, "hidden": 12, "embedding": 6, "tied": False, "dropout": 0.1}
    stage.run(settings(random_data.folder, run, shape, BASE), random_data.manifest)
    return run / "model"


def continued(base: Path, model: dict[str, Any] | None = None, **train: Any) -> config.Config:
    chosen = settings(Path("data"), Path("run"), model or {}, {"init": str(base)} | train)
    return fine_tuning.resolve(chosen)


def test_what_is_not_set_comes_from_the_model(base):
    chosen = continued(base)
    assert chosen.model == model_folder.read(base).model
    assert (chosen.train.segments, chosen.train.reset, chosen.train.lr) == ("streams", "none", 0.01)
    assert (chosen.tokenizer.kind, chosen.tokenizer.file) == ("file", str(base / "tokenizer.json"))
    assert chosen.train.window == config.Train().window


def test_what_is_set_stays_and_another_shape_is_refused(base):
    chosen = continued(base, {"dropout": 0.4, "cell": "gru"}, lr=0.5, segments="sentences")
    assert (chosen.model.dropout, chosen.train.lr, chosen.train.segments, chosen.train.reset) == (0.4, 0.5, "sentences", "none")
    with pytest.raises(RequestError, match=r"another shape: model\.cell = 'gru', here 'rnn'; model\.hidden = 12, here 9; leave these"):
        continued(base, {"hidden": 9, "cell": "rnn"})
    with pytest.raises(RequestError, match="no model here"):
        continued(base / "nowhere")
    own = config.resolve({"train": {"init": str(base)}, "tokenizer": {"kind": "character"}})
    assert fine_tuning.resolve(own).tokenizer.kind == "character"


def test_the_learning_rate_of_another_optimizer_is_not_taken(base):
    """Plain SGD's is four orders of magnitude above AdamW's."""
    assert continued(base, optimizer="sgd").train.lr == pytest.approx(config.Train().lr / 2)


def test_all_settings_written_out_mean_the_same(base):
    """As the pipeline hands them to its stages."""
    chosen = continued(base)
    again = config.resolve(chosen.model_dump(mode="json"))
    assert fine_tuning.resolve(again) == chosen == again


def fine_tune(random_data: Any, base: Path | None, run: Path, **train: Any) -> Path:
    """A training of six steps, without `base` from random weights."""
    values = {"init": str(base or ""), "streams": 4, "window": 5, "epochs": 9, "max_steps": 6} | train
    chosen = settings(random_data.folder, run, {} if base else {"hidden": 8}, values)
    stage.run(fine_tuning.resolve(chosen), random_data.manifest)
    return run


def measured(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    remaining = iter(losses)
    monkeypatch.setattr(Validation, "measure", lambda *arguments: Result(next(remaining) * 10, 10))


def test_fine_tuning_that_only_harms_keeps_the_initial_weights_and_says_so(random_data, base, tmp_path, caplog, monkeypatch):
    measured(monkeypatch, 2.0, 2.1, 2.2)
    run = fine_tune(random_data, base, tmp_path, keep=1)
    assert model_folder.read(run / "model").weights == model_folder.read(base).weights
    assert files.read_json(run / "train" / "summary.json")["validation"]["best"]["step"] == 0
    assert "training has not improved the initial model (validation perplexity 7.39 before, 9.03 at the end)" in caplog.text
    assert checkpoint.steps(run / "train" / "checkpoints") == [0, 6]


def test_fine_tuning_that_helps_exports_what_it_has_learned(random_data, base, tmp_path, caplog, monkeypatch):
    measured(monkeypatch, 2.0, 1.9, 2.2)
    run = fine_tune(random_data, base, tmp_path)
    assert model_folder.read(run / "model").numbers.validation["best"]["step"] == 3 and "has not improved" not in caplog.text


def test_patience_counts_from_the_initial_model(random_data, base, tmp_path, monkeypatch):
    measured(monkeypatch, 2.0, 2.1, 2.2, 1.0)
    run = fine_tune(random_data, base, tmp_path, patience=2, max_steps=30)
    assert files.read_json(run / "train" / "summary.json")["steps"] == 6


def test_fine_tuning_that_is_killed_at_any_validation_keeps_the_initial_weights(random_data, base, tmp_path, monkeypatch):
    """The checkpoint of step 0 is resumed from like any other."""

    class Killed(Exception):
        pass

    undisturbed = fine_tune(random_data, base, tmp_path / "undisturbed")
    replace, killed_at = checkpoint.replace_state, set()

    def die_once(folder, state):
        if state.step not in killed_at:
            killed_at.add(state.step)
            raise Killed
        replace(folder, state)

    monkeypatch.setattr(checkpoint, "replace_state", die_once)
    for _ in range(3):
        with pytest.raises(Killed):
            fine_tune(random_data, base, tmp_path / "run")
    fine_tune(random_data, base, tmp_path / "run")
    assert killed_at == {0, 3, 6}
    assert model_folder.read(tmp_path / "run" / "model").weights == model_folder.read(undisturbed / "model").weights


@pytest.mark.parametrize("loss", [4.0, 300.0])
@pytest.mark.parametrize("init", [False, True])
def test_a_diverged_training_is_an_error_and_never_the_best(random_data, base, tmp_path, caplog, monkeypatch, loss, init):
    """Worse than a uniform guess among the 17 entries of the vocabulary, whose loss is 2.83."""
    caplog.set_level("INFO", "packlm")
    measured(monkeypatch, 2.8, loss, loss - 0.1)
    with pytest.raises(PacklmError, match=r"the training diverged: .* a uniform guess has 17; no model was written\. Lower train\.lr"):
        fine_tune(random_data, base if init else None, tmp_path)
    assert "(best)" not in caplog.text and not (tmp_path / "model").exists()
    assert f"validation perplexity {math.exp(loss):.{2 if loss < 10 else 3}{'f' if loss < 10 else 'g'}}" in caplog.text
    with pytest.raises(PacklmError, match="the training diverged"):  # again, and without a step
        monkeypatch.setattr(Trainer, "update", lambda trainer, stop: pytest.fail("trained again"))
        fine_tune(random_data, base if init else None, tmp_path)


def test_a_training_that_recovers_is_none_that_diverged(random_data, tmp_path, monkeypatch):
    measured(monkeypatch, 2.8, 9.0, 2.5)
    run = fine_tune(random_data, None, tmp_path)
    assert model_folder.read(run / "model").numbers.validation["best"]["step"] == 6


def test_an_early_stop_writes_its_last_line_of_metrics(random_data, tmp_path, monkeypatch):
    measured(monkeypatch, 2.8, 2.7, 2.75)
    run = fine_tune(random_data, None, tmp_path, segments="streams", patience=1, max_steps=30, log_every=4)
    lines = [line for _, line in json_lines.read(run / "train" / "metrics.jsonl", MetricLine)]
    assert [(line["step"], "train/loss" in line) for line in lines] == [(0, False), (3, False), (4, True), (6, False), (6, True)]
    assert lines[-1]["train/epoch"] == pytest.approx(lines[-1]["tokens"] / random_data.manifest.split("train").tokens)


@pytest.mark.parametrize("moment", ["measure", "export"])
def test_an_early_stop_that_is_killed_around_its_last_validation_writes_the_same_lines(random_data, tmp_path, monkeypatch, moment):
    class Killed(Exception):
        pass

    short = {"segments": "streams", "patience": 1, "max_steps": 30, "log_every": 4}
    measured(monkeypatch, 2.8, 2.7, 2.75)
    expected = metrics(fine_tune(random_data, None, tmp_path / "undisturbed", **short))

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "measure":
            measured(patch, 2.8, 2.7)  # and then no more
        else:
            measured(patch, 2.8, 2.7, 2.75)
            patch.setattr("train.trainer.export", die)
        with pytest.raises((Killed, StopIteration)):
            fine_tune(random_data, None, tmp_path / "run", **short)
    measured(monkeypatch, 2.75)
    assert metrics(fine_tune(random_data, None, tmp_path / "run", **short)) == expected

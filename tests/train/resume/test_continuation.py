"""A training that is continued with another length ends as one that had that length from the beginning, where its schedule allows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import config
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.dataset import Manifest
from packlm.model import folder as model_folder
from tests.train.test_training import metrics
from train import record, stage
from train.state import TrainState
from train.trainer import Trainer

SCHEDULES = {
    "constant": {"optimizer": "adamw", "lr": 0.01, "ema": 0.5},
    "inverse_sqrt": {"optimizer": "muon", "lr": 0.01, "warmup_steps": 2},
    "plateau": {"optimizer": "sgd", "lr": 5.0, "lr_factor": 0.5, "patience": 5},
    "zaremba": {"optimizer": "sgd", "lr": 1.0, "lr_factor": 0.5, "flat_epochs": 1},
}


class Killed(Exception):
    pass


def settings(data: Path, run: Path, **train: Any) -> config.Config:
    values = {"segments": "streams", "streams": 4, "window": 5, "device": "cpu", "samples": 0, "precision": "float64", "log_every": 1}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": 8}, "train": values | train
    })  # fmt: skip


def run_killed(monkeypatch: pytest.MonkeyPatch, config: config.Config, manifest: Manifest, at: Callable[[TrainState], bool]) -> None:
    """Trains until the validation at the state that `at` is true of, and dies there."""

    def die(trainer: Trainer) -> None:
        if at(trainer.state):
            raise Killed
        validate(trainer)

    validate = Trainer.validate
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", die)
        with pytest.raises(Killed):
            stage.run(config, manifest)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_longer_training_is_the_one_of_that_length(random_data, tmp_path, monkeypatch, caplog, schedule):
    caplog.set_level("INFO", "packlm")
    common = {"schedule": schedule, **SCHEDULES[schedule]}
    stage.run(settings(random_data.folder, tmp_path / "whole", epochs=4, **common), random_data.manifest)
    run = tmp_path / "run"
    for epochs in (1, 2):
        stage.run(settings(random_data.folder, run, epochs=epochs, **common), random_data.manifest)
    longer = settings(random_data.folder, run, epochs=4, **common)
    run_killed(monkeypatch, longer, random_data.manifest, lambda state: state.epoch == 3)
    stage.run(longer, random_data.manifest)
    assert "continuing with another length: train.epochs: 2 -> 4" in caplog.text and "follows the curve" not in caplog.text
    assert metrics(run) == metrics(tmp_path / "whole")
    assert model_folder.read(run / "model").weights == model_folder.read(tmp_path / "whole" / "model").weights
    assert record.is_complete(run, record.inputs_of(longer, random_data.manifest))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_a_schedule_of_all_steps_follows_the_curve_of_the_new_length(random_data, tmp_path, caplog, schedule):
    caplog.set_level("INFO", "packlm")
    common = {"schedule": schedule, "optimizer": "adamw", "lr": 0.01, "epochs": 99, "validate_every": 3}
    stage.run(settings(random_data.folder, tmp_path / "whole", max_steps=12, **common), random_data.manifest)
    for steps in (6, 12):
        stage.run(settings(random_data.folder, tmp_path / "run", max_steps=steps, **common), random_data.manifest)
    ours, expected = ([line["train/lr"] for line in metrics(tmp_path / name) if "train/lr" in line] for name in ("run", "whole"))
    assert len(ours) == 12 and ours[6:] == expected[6:] and ours[:6] != expected[:6]
    assert f"train.schedule = {schedule} follows the curve of 12 steps from here on: learning rate {expected[6]:.3g}" in caplog.text


def test_an_unfinished_training_can_end_earlier_and_a_patience_can_change(random_data, tmp_path, monkeypatch):
    run, common = tmp_path / "run", {"optimizer": "adamw", "lr": 0.01, "epochs": 99, "validate_every": 2}
    run_killed(monkeypatch, settings(random_data.folder, run, max_steps=20, **common), random_data.manifest, lambda state: state.step == 8)
    stage.run(settings(random_data.folder, run, max_steps=10, **common), random_data.manifest)
    assert files.read_json(run / "train" / "summary.json")["steps"] == 10
    stage.run(settings(random_data.folder, run, max_steps=14, patience=3, **common), random_data.manifest)
    assert files.read_json(run / "train" / "summary.json")["steps"] == 14


@pytest.mark.parametrize(
    ("train", "lost", "named"),
    [
        ({"max_steps": 4}, False, r"this training has 6 steps already, and would have 4 \(train.max_steps: 6 -> 4\); make it longer"),
        ({"max_steps": 9, "lr": 0.02}, False, r"a training with other settings"),
        ({"max_steps": 9}, True, r"no checkpoint of the finished training is left to continue from"),
    ],
    ids=["shorter", "another", "lost"],
)
def test_what_cannot_be_continued_is_refused_and_untouched(random_data, tmp_path, train, lost, named):
    run, common = tmp_path / "run", {"optimizer": "adamw", "lr": 0.01, "epochs": 99, "max_steps": 6}
    stage.run(settings(random_data.folder, run, **common), random_data.manifest)
    if lost:
        for path in (run / "train" / "checkpoints").rglob("*"):
            if path.is_file():
                path.unlink()
        for path in (run / "train" / "checkpoints").iterdir():
            path.rmdir()
    before = tree(run)
    with pytest.raises(RequestError, match=named):
        stage.run(settings(random_data.folder, run, **common | train), random_data.manifest)
    assert tree(run) == before
    stage.run(settings(random_data.folder, run, **common), random_data.manifest)  # the finished one is still complete
    assert tree(run) == before


def test_a_dry_run_says_that_the_training_is_continued(random_data, tmp_path):
    run, common = tmp_path / "run", {"optimizer": "adamw", "lr": 0.01, "epochs": 99}
    stage.run(settings(random_data.folder, run, max_steps=3, **common), random_data.manifest)
    text = stage.describe(settings(random_data.folder, run, max_steps=9, **common), random_data.manifest) or ""
    assert "holds this training with another length, and is continued: train.max_steps: 3 -> 9" in text

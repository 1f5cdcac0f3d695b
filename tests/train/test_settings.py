"""Settings that have no effect or cannot work are told before the first step, and what a training announces is so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from packlm import config
from packlm.base.errors import RequestError
from packlm.config import recipes
from packlm.distributed import Ranks
from tests import random_dataset
from train import stage
from train.optim.schedule import Schedule
from train.progress.remaining import RemainingTime
from train.trainer import Trainer
from train.without_effect import without_effect

ALONE = Ranks(0, 1, torch.device("cpu"))


def settings(data: Path, run: Path, model: dict[str, Any] | None = None, **train: Any) -> config.Config:
    values = {"segments": "rows", "global_batch_tokens": 60, "device": "cpu", "samples": 0, "max_steps": 4}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": 8} | (model or {}),
        "train": values | train,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("model", "train", "expected"),
    [
        ({"layers": 1, "dropout_hidden": 0.3}, {}, ["model.dropout_hidden (there is one layer)"]),
        ({"layers": 2, "dropout_hidden": 0.3}, {}, []),
        ({"dropout": 0.3, "dropout_input": 0.1, "dropout_hidden": 0.1, "dropout_output": 0.1}, {}, ["model.dropout (dropout_input"]),
        ({"layers": 1, "dropout": 0.3, "dropout_input": 0.1, "dropout_output": 0.1}, {}, ["model.dropout (dropout_input"]),
        ({"layers": 1, "dropout": 0.3, "dropout_input": 0.1}, {}, []),
        ({"cell": "sru", "weight_drop": 0.3}, {}, ["model.weight_drop (model.cell = sru has no recurrent matrix)"]),
        ({"cell": "qrnn", "weight_drop": 0.3}, {}, []),
        ({"locked": True}, {}, ["model.locked (there is no dropout of units)"]),
        ({"locked": True, "dropout": 0.1}, {}, []),
        ({}, {"optimizer": "adamw", "momentum": 0.9}, ["train.momentum (train.optimizer = adamw)"]),
        ({}, {"optimizer": "sgd", "momentum": 0.9}, []),
        ({}, {"window": 99, "streams": 3}, ["train.streams (train.segments = rows)", "train.window (train.segments = rows)"]),
        ({}, {"segments": "streams", "window": 99}, ["train.global_batch_tokens (train.segments = streams)"]),
        ({}, {"schedule": "cosine", "decay_share": 0.5}, ["train.decay_share (train.schedule = cosine)"]),
        ({}, {"schedule": "constant", "lr_floor": 0.5}, ["train.lr_floor (train.schedule = constant)"]),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_named_with_the_reason(model, train, expected):
    named = without_effect(settings(Path("data"), Path("run"), {"dropout": 0.0} | model, **{"schedule": "constant"} | train))
    assert len(named) == len(expected) and all(line.startswith(start) for line, start in zip(named, expected, strict=True)), named


def test_no_setting_of_a_recipe_is_without_effect():
    named = {name: without_effect(config.load(recipes.find(Path(name)))) for name in recipes.names()}
    assert named and not any(named.values()), named


def test_settings_without_effect_are_logged_once(random_data, tmp_path, caplog):
    Trainer(settings(random_data.folder, tmp_path, {"layers": 1, "dropout_hidden": 0.5}), random_data.manifest, ALONE).run()
    assert caplog.text.count("without effect: model.dropout_hidden (there is one layer)") == 1


def test_the_decay_of_wsd_is_a_share_of_all_steps_and_the_log_says_which(random_data, tmp_path, caplog):
    caplog.set_level("INFO", "packlm")
    wsd = {"schedule": "wsd", "decay_share": 0.2, "lr_floor": 0.0, "lr": 2.0}
    schedule = Schedule(config.Train(warmup_steps=50, **wsd), 100)
    lrs = [schedule.lr(step, 0) for step in range(100)]
    assert [number for number, lr in enumerate(lrs, 1) if lr == 2.0] == [*range(51, 82)] and schedule.last_stable_step == 81
    assert lrs[90] == pytest.approx(1.0)
    chosen = settings(random_data.folder, tmp_path, **wsd | {"decay_share": 0.5, "lr": 1e-3})
    Trainer(chosen, random_data.manifest, ALONE).run()
    assert "the learning rate decays after step 3 of 4" in caplog.text


@pytest.mark.parametrize(
    ("setting", "name"),
    [({"patience": 2}, "train.patience = 2"), ({"schedule": "plateau"}, "train.schedule"), ({"optimizer": "nt-asgd"}, "train.optimizer")],
)
def test_what_follows_the_validation_loss_is_refused_without_a_validation_split(tmp_path, setting, name):
    manifest = random_dataset.write(tmp_path / "data")
    del manifest.splits["validation"]
    with pytest.raises(RequestError, match=rf"{name}.* has no validation split; make one with .*--corpus\.validation_fraction"):
        stage.run(settings(tmp_path / "data", tmp_path / "run", **setting), manifest)
    assert not (tmp_path / "run").exists()
    stage.run(settings(tmp_path / "data", tmp_path / "run"), manifest)


def test_the_time_left_includes_the_validations_to_come():
    remaining = RemainingTime(100, 30)
    remaining.validated(8.0)  # before the first step
    assert remaining.seconds(0) == 4 * 8.0  # at 30, 60, 90 and 100
    for _ in range(40):
        remaining.updated(0.5)
    remaining.validated(10.0)
    assert remaining.seconds(40) == 60 * 0.5 + 3 * 10.0
    assert remaining.seconds(95) == 5 * 0.5 + 10.0

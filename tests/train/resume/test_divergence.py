"""A training that diverges ends with an error, wherever it shows first, and leaves no number that is not finite."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from packlm import config, distributed
from packlm.base.errors import PacklmError
from packlm.model import folder as model_folder
from packlm.model.finite import NotFinite
from train import checkpoint
from train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
ALONE = distributed.Ranks(0, 1, torch.device("cpu"))


def settings(data: Path, run: Path, **train: Any) -> config.Config:
    values = {"segments": "streams", "streams": 4, "window": 4, "epochs": 9, "max_steps": 6, "device": "cpu", "samples": 0, "keep": 9}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": 8},
        "train": values | {"validate_every": 3, "log_every": 1, "schedule": "constant"} | train,
    })  # fmt: skip


def check_files(folder: Path) -> None:
    """No JSON below a folder holds NaN or Infinity, and no checkpoint a number that is not finite."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for path in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        for text in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            json.loads(text, parse_constant=refuse)
    checkpoints = folder / "train" / "checkpoints"
    for step in checkpoint.steps(checkpoints) if checkpoints.exists() else []:
        assert all(tensor.isfinite().all() for tensor in checkpoint.load(checkpoints, step)[0].values())
    assert not (folder / "model").exists() and not (folder / "train" / "summary.json").exists()


class SpoiledAt(Trainer):
    """A training in which something is spoiled at step 3: before its update or after it."""

    spoil: str
    step = 3

    def update(self, stop):
        at = self.state.step == self.step - 1
        if at and self.spoil == "gradient":
            self.model.projection.bias.register_hook(lambda gradient: gradient * torch.nan)
        if at and self.spoil == "loss":
            self.model.projection.bias.data[3] = torch.nan
        if at and self.spoil == "huge loss":
            self.model.projection.bias.data[3] = 1e30
        update = super().update(stop)
        if at and self.spoil == "weights":
            self.model.embedding.weight.data[3, 2] = torch.inf
        if at and self.spoil == "optimizer":
            next(iter(self.optimizers[0].state.values()))["exp_avg"][0] = torch.nan
        if at and self.spoil == "carried state":
            self.carried[0][0][0, 0, 0] = torch.nan
        if at and self.spoil == "validation":
            self.model.projection.bias.data[3] = 1e30  # weights that are finite, and a loss that is, but no perplexity
        return update


@pytest.mark.parametrize("last", [False, True], ids=["midway", "at the end"])
@pytest.mark.parametrize("spoil", ["gradient", "loss", "huge loss", "weights", "optimizer", "carried state", "validation"])
def test_whatever_is_not_finite_ends_the_training_with_its_remedy(random_data, tmp_path, spoil, last):
    chosen = settings(random_data.folder, tmp_path, max_steps=3 if last else 6)
    trainer = SpoiledAt(chosen, random_data.manifest, ALONE)
    trainer.spoil = spoil
    with pytest.raises(PacklmError, match=r"Lower train.lr or train.clip, with --rebuild or another --run.name") as caught:
        trainer.run()
    assert "\n" not in str(caught.value) and "step 3" in str(caught.value)
    assert checkpoint.steps(tmp_path / "train" / "checkpoints") == []
    check_files(tmp_path)


def test_without_a_validation_split_the_last_weights_are_checked_too(random_data, tmp_path):
    trainer = SpoiledAt(settings(random_data.folder, tmp_path, max_steps=3), random_data.manifest, ALONE)
    trainer.spoil, trainer.validation = "weights", None
    with pytest.raises(PacklmError, match=r"step 3: model\.embedding\.weight is not finite"):
        trainer.run()
    check_files(tmp_path)


def test_fp16_gives_up_when_no_scale_helps(random_data, tmp_path):
    chosen = settings(random_data.folder, tmp_path, precision="fp16", segments="rows", max_steps=99, epochs=99, validate_every=99)
    trainer = Trainer(chosen, random_data.manifest, ALONE)
    trainer.model.projection.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(PacklmError, match=r"step 31: loss 2\.\d+, gradient norm (inf|nan); the update was not made"):
        trainer.run()
    check_files(tmp_path)


def test_weights_that_are_not_finite_are_refused_by_whoever_loads_them(random_data, tmp_path):
    trainer = Trainer(settings(random_data.folder, tmp_path, max_steps=3), random_data.manifest, ALONE)
    weights = model_folder.weights_of(trainer.model)
    for wrong in (torch.nan, -torch.inf):
        weights["embedding.weight"][1, 1] = wrong
        with pytest.raises(NotFinite, match=r"here: embedding.weight holds NaN or an infinite number"):
            model_folder.restore_weights(trainer.model, weights, Path("here"))


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_huge_learning_rate_ends_all_ranks_with_one_line(random_data, tmp_path, world):
    options = {
        "train.lr": 1e4, "train.optimizer": "sgd", "train.clip": 1e9, "train.schedule": "constant", "train.device": "cpu",
        "model.hidden": 8, "tracking.uri": "", "train.samples": 0, "train.epochs": 50,
        "dataset.dir": random_data.folder, "run.dir": tmp_path / "run",
    }  # fmt: skip
    start = [] if world == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    command = [sys.executable, *start, str(ROOT / "train"), *(f"--{key}={value}" for key, value in options.items())]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Lower train.lr" in errors[0], result.stderr
    assert world > 1 or "Traceback" not in result.stderr
    check_files(tmp_path / "run")

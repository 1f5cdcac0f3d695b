"""Training on a device with its own memory: no tensor is left on the CPU, which waits for the device once a step."""

import pytest
import torch

from packlm.distributed import Ranks
from tests.fake_device import CPU, DEVICE, fake_device
from tests.train.test_training import KINDS, metrics, settings, tensors, train_once
from train.trainer import Trainer

SHORT = {"layout": "steps", "max_steps": 5, "validate_every": 5, "log_every": 2}
STOPS = (3,)
TRAININGS = {
    **{kind: {"kind": kind} for kind in KINDS},
    "nt-asgd": {"kind": "nt-asgd", "lr": 60.0, "warmup_steps": 9, "validate_every": 1},
    "samples": {"kind": "rows", "samples": 1},
    "packed": {"kind": "sentences", "layout": "packed"},
    "rectangle": {"kind": "streams", "layout": "rectangle"},
    "passes": {"kind": "rows", "accumulate": 2},
    "bitwise": {"kind": "streams", "bitwise": 2},
    "adamw": {"kind": "rows", "optimizer": "adamw"},
    "muon": {"kind": "sentences", "optimizer": "muon", "ema": 0.5},
    "residual": {"kind": "streams", "residual": "project"},
    "adaptive softmax": {"kind": "sentences", "cutoffs": (5, 9)},
    "fp16": {"kind": "streams", "precision": "fp16"},
    **{cell: {"kind": "streams", "cell": cell, "weight_drop": 0.0} for cell in ("rnn", "gru", "mogrifier", "qrnn", "sru")},
}


def configure(data, run, kind, cell="lstm", weight_drop=0.3, residual="none", cutoffs=(), **train):
    config = settings(data, run, kind, **SHORT | train)
    model = {"cell": cell, "weight_drop": weight_drop, "residual": residual, "cutoffs": cutoffs}
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


@pytest.mark.parametrize(
    "train",
    [
        pytest.param(train, id=name, marks=[pytest.mark.long] if train.get("cell") in ("rnn", "mogrifier", "qrnn", "sru") else [])
        for name, train in TRAININGS.items()
    ],
)
def test_training_on_a_device_equals_training_on_the_cpu_also_when_it_is_stopped(random_data, tmp_path, train):
    train_once(Ranks(0, 1, CPU), configure(random_data.folder, tmp_path / "cpu", **train))
    with fake_device():
        train_once(Ranks(0, 1, DEVICE), configure(random_data.folder, tmp_path / "device", **train))
        train_once(Ranks(0, 1, DEVICE), configure(random_data.folder, tmp_path / "stopped", **train), STOPS)
    on_cpu, on_device, stopped = (tensors(tmp_path / name, 5) for name in ("cpu", "device", "stopped"))
    assert on_cpu.keys() == on_device.keys() == stopped.keys()
    assert any(name.startswith("average.") for name in on_cpu) == (train["kind"] in ("sentences", "nt-asgd"))
    rounding = 2e-2 if train.get("precision") == "fp16" else 1e-9
    for name, expected in on_cpu.items():
        assert torch.equal(on_device[name], stopped[name]), name
        torch.testing.assert_close(on_device[name], expected, rtol=rounding, atol=rounding)
    assert metrics(tmp_path / "device") == metrics(tmp_path / "stopped")


@pytest.mark.parametrize("train", [{}, {"accumulate": 3}, {"ema": 0.5, "optimizer": "adamw", "cell": "gru"}], ids=["", "passes", "adamw"])
def test_the_cpu_waits_for_the_device_once_a_step(random_data, tmp_path, train):
    with fake_device() as synchronizations:
        trainer = Trainer(configure(random_data.folder, tmp_path, "rows", **train), random_data.manifest, Ranks(0, 1, DEVICE))
        synchronizations.clear()
        for _ in range(4):
            trainer.update(stop=False)
    assert synchronizations == {"trainer.py:update": 4}

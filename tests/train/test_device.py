"""Trainings on a device with a memory of its own: nothing is left on the CPU, and the processor waits for the device once a step."""

import pytest
import torch

from packlm.distributed import Ranks
from tests.elsewhere import CPU, DEVICE, elsewhere
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
    "fp16": {"kind": "streams", "precision": "fp16"},
    **{cell: {"kind": "streams", "cell": cell, "weight_drop": 0.0} for cell in ("rnn", "gru", "mogrifier")},
}


def made_for(data, run, kind, cell="lstm", weight_drop=0.3, **train):
    made = settings(data, run, kind, **SHORT | train)
    return made.model_copy(update={"model": made.model.model_copy(update={"cell": cell, "weight_drop": weight_drop})})


@pytest.mark.parametrize("train", TRAININGS.values(), ids=TRAININGS)
def test_a_training_elsewhere_is_that_of_the_cpu_also_when_it_is_stopped(made, tmp_path, train):
    train_once(Ranks(0, 1, CPU), made_for(made[0], tmp_path / "here", **train))
    with elsewhere():
        train_once(Ranks(0, 1, DEVICE), made_for(made[0], tmp_path / "there", **train))
        train_once(Ranks(0, 1, DEVICE), made_for(made[0], tmp_path / "stopped", **train), STOPS)
    here, there, stopped = (tensors(tmp_path / name, 5) for name in ("here", "there", "stopped"))
    assert here.keys() == there.keys() == stopped.keys()
    assert any(name.startswith("average.") for name in here) == (train["kind"] in ("sentences", "nt-asgd"))
    rounding = 2e-2 if train.get("precision") == "fp16" else 1e-9
    for name, expected in here.items():
        assert torch.equal(there[name], stopped[name]), name
        torch.testing.assert_close(there[name], expected, rtol=rounding, atol=rounding)
    assert metrics(tmp_path / "there") == metrics(tmp_path / "stopped")


@pytest.mark.parametrize("train", [{}, {"accumulate": 3}, {"ema": 0.5, "optimizer": "adamw", "cell": "gru"}], ids=["", "passes", "adamw"])
def test_the_processor_waits_for_the_device_once_a_step(made, tmp_path, train):
    with elsewhere() as waits:
        trainer = Trainer(made_for(made[0], tmp_path, "rows", **train), made[1], Ranks(0, 1, DEVICE))
        waits.clear()
        for _ in range(4):
            trainer.update(stop=False)
    assert waits == {"trainer.py:update": 4}

"""Reduced precision changes the last digits, not the training; updates that overflow in fp16 are skipped and counted."""

import json
import math

import pytest
import torch

from packlm import distributed
from packlm.evaluation.evaluate import Validation
from packlm.model.precision import Precision
from tests.train.test_training import settings
from train import trainer as trainer_module
from train.trainer import Trainer


def trained(random_data, run, **train) -> Trainer:
    with distributed.start("cpu") as ranks:
        trainer = Trainer(settings(random_data.folder, run, "sentences", max_steps=12, **train), random_data.manifest, ranks)
        trainer.run()
    return trainer


def losses(trainer: Trainer, key: str = "train/loss") -> list[float]:
    lines = [json.loads(line) for line in (trainer.folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.mark.parametrize("layout", ["auto", "steps", "packed", "rectangle"])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "medium"])
def test_reduced_precision_trains_as_float32_does_to_rounding(random_data, tmp_path, precision, layout):
    reduced, full = (trained(random_data, tmp_path / name, layout=layout, precision=name) for name in (precision, "float32"))
    assert losses(reduced) == pytest.approx(losses(full), rel=0.01)
    norms = [losses(trainer, "train/gradient_norm") for trainer in (reduced, full)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05)  # unscaled
    if precision != "medium":
        assert losses(reduced) != losses(full)
    assert all(parameter.dtype == torch.float32 for parameter in reduced.model.parameters())


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bf16_where_all_processes_have_instructions_for_it(random_data, tmp_path, monkeypatch, has):
    monkeypatch.setattr(trainer_module, "has_bfloat16", lambda device: has)
    auto, named = (trained(random_data, tmp_path / name, precision=name) for name in ("auto", "bf16" if has else "float32"))
    assert losses(auto) == losses(named) and auto.precision.name == named.precision.name
    muon = [trained(random_data, tmp_path / f"muon-{name}", precision=name, optimizer="muon") for name in ("auto", named.precision.name)]
    assert losses(muon[0]) == losses(muon[1])
    assert Precision("auto", torch.device("cpu"), has).multiplies_bfloat16 == has


def test_float32_differs_from_float64_in_rounding_alone(random_data, tmp_path):
    single, double = (trained(random_data, tmp_path / name, precision=name) for name in ("float32", "float64"))
    assert losses(single) == pytest.approx(losses(double), rel=1e-5) and losses(single) != losses(double)


def test_fp16_skips_and_counts_an_overflow_and_resumes(random_data, tmp_path):
    skipping = settings(random_data.folder, tmp_path, "rows", precision="fp16", max_steps=3, checkpoint_every=1)
    with distributed.start("cpu") as ranks:
        trainer = Trainer(skipping, random_data.manifest, ranks)
        before, scale = trainer.model.projection.bias.detach().clone(), trainer.precision.scaler.get_scale()
        overflow = trainer.model.projection.bias.register_hook(lambda gradient: gradient * math.inf)
        assert trainer.update(stop=False).norm is None
        assert torch.equal(trainer.model.projection.bias, before)
        assert (trainer.state.skipped, trainer.state.step) == (1, 1)
        assert trainer.precision.scaler.get_scale() == scale / 2
        overflow.remove()
        assert trainer.update(stop=False).norm > 0
        assert not torch.equal(trainer.model.projection.bias, before)
        trainer.save()

        again = Trainer(skipping, random_data.manifest, ranks)
        again.resume()
        assert (again.state.skipped, again.state.step) == (1, 2)
        assert again.precision.state() == trainer.precision.state()


@pytest.mark.parametrize("precision", ["medium", "float32", "bf16"])
def test_only_medium_rounds_products_and_not_in_validation(random_data, tmp_path, monkeypatch, precision):
    settings_of = {"update": set(), "measure": set()}
    for owner, method in ((Trainer, Trainer.update), (Validation, Validation.measure)):

        def recording(*args, method=method):
            settings_of[method.__name__].add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return method(*args)

        monkeypatch.setattr(owner, method.__name__, recording)
    trained(random_data, tmp_path, precision=precision)
    full, rounded = ("highest", False), ("medium", True)
    assert settings_of == {"update": {rounded if precision == "medium" else full}, "measure": {full}}


def test_float32_has_no_gradient_scaler_state():
    assert Precision("float32", torch.device("cpu")).state() == {}

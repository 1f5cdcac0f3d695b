"""Averages of checkpoints: the mean of the weights, of the last ones or of a greedy soup; validated as the averaged model."""

from pathlib import Path

import pytest
import torch

from packlm import config
from packlm.base.errors import RequestError
from packlm.dataset import Manifest
from packlm.model import folder as model_folder
from tests.train.resume.test_continuation import settings
from train import checkpoint, stage
from train.results import average_checkpoints

Trained = tuple[config.Config, Manifest]


@pytest.fixture(scope="module")
def trained(random_data: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training with a constant learning rate that keeps all of its checkpoints, and validates with a moving average."""
    data, manifest = random_data
    train = {"optimizer": "adamw", "lr": 0.1, "schedule": "constant", "epochs": 1, "validate_every": 4, "keep": 10, "ema": 0.3}
    one = settings(data, tmp_path_factory.mktemp("run"), **train)
    stage.run(one, manifest)
    return one, manifest


def losses(one: config.Config) -> dict[int, float]:
    """Step -> the validation loss recorded in its checkpoint."""
    folder = one.run.dir / "train" / "checkpoints"
    states = {step: checkpoint.load(folder, step)[1] for step in checkpoint.steps(folder) if step}
    return {step: state.validation.last.loss for step, state in states.items()}


def plain_mean(one: config.Config, steps: list[int]) -> dict[str, torch.Tensor]:
    folder = one.run.dir / "train" / "checkpoints"
    each = [checkpoint.under_prefix("average", checkpoint.load(folder, step)[0]) for step in steps]
    return {name: torch.stack([weights[name] for weights in each]).mean(0) for name in each[0]}


def test_the_last_checkpoints_are_averaged(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, manifest = trained
    average_checkpoints.run(one, manifest, tmp_path / "averaged", 3)
    last = sorted(losses(one))[-3:]
    model, info = model_folder.load(tmp_path / "averaged")
    found = model_folder.weights_of(model)
    for name, expected in plain_mean(one, last).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-14, atol=1e-14)
    validation = average_checkpoints.setup.open_validation(one, manifest)
    expected = validation.measure(model, average_checkpoints.Ranks(0, 1, torch.device("cpu")), 1, lambda: False)
    assert info.numbers.validation["best"]["perplexity"] == pytest.approx(expected.perplexity, rel=1e-12)
    names = ", ".join(str(step) for step in last)
    assert capsys.readouterr().out == f"mean of steps {names}: validation perplexity {expected.perplexity:.2f}\n"


def test_a_greedy_soup_adds_what_does_not_harm(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, manifest = trained
    average_checkpoints.run(one, manifest, tmp_path / "soup", None)
    chosen = [int(step) for step in capsys.readouterr().out.removeprefix("mean of steps ").split(":")[0].split(", ")]
    of_steps, validation = losses(one), average_checkpoints.setup.open_validation(one, manifest)
    model, info = model_folder.load(tmp_path / "soup")

    def loss(steps: list[int]) -> float:
        model_folder.restore_weights(model, plain_mean(one, steps), tmp_path)
        return validation.measure(model, average_checkpoints.Ranks(0, 1, torch.device("cpu")), 1, lambda: False).loss

    order = sorted(of_steps, key=lambda step: of_steps[step])
    soup, best = order[:1], loss(order[:1])
    for step in order[1:]:
        if (other := loss(sorted([*soup, step]))) <= best:
            soup, best = sorted([*soup, step]), other
    assert chosen == soup and len(soup) > 1
    assert info.numbers.validation["best"]["loss"] == pytest.approx(best, rel=1e-12) and best < min(of_steps.values())


def test_what_cannot_be_averaged_is_refused(trained: Trained, tmp_path: Path) -> None:
    one, manifest = trained
    with pytest.raises(RequestError, match=r"5 and not 6 checkpoints to average; train with --train.keep 6"):
        average_checkpoints.run(one, manifest, tmp_path / "averaged", 6)
    other = one.model_copy(update={"model": one.model.model_copy(update={"dropout": 0.7})})
    with pytest.raises(RequestError, match=r"checkpoints of another training: .*dropout"):
        average_checkpoints.run(other, manifest, tmp_path / "averaged", 3)
    empty = one.model_copy(update={"run": one.run.model_copy(update={"dir": tmp_path / "none"})})
    with pytest.raises(RequestError, match=r"0 and not 2 checkpoints to average"):
        average_checkpoints.run(empty, manifest, tmp_path / "averaged", 2)
    assert not (tmp_path / "averaged").exists()


def test_a_damaged_checkpoint_is_left_out(trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys) -> None:
    one, manifest = trained
    steps = sorted(losses(one))
    damaged = checkpoint.path_of(one.run.dir / "train" / "checkpoints", steps[-1]) / "tensors.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        average_checkpoints.run(one, manifest, tmp_path / "averaged", 2)
    finally:
        damaged.write_bytes(content)
    assert "it is left out" in caplog.text and capsys.readouterr().out.startswith(f"mean of steps {steps[-3]}, {steps[-2]}:")

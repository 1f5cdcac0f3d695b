"""What a training leaves on the disk: checkpoints, metrics, the model folder."""

import json

import pytest
import torch

from pipeline import config, files
from pipeline.errors import PacklmError, RequestError
from train import checkpoint, model_folder
from train.metrics import Meter, MetricsWriter
from train.model import build
from train.optimizers import Schedule
from train.optimizers import build as build_optimizer


def save(folder, step, best=False, value=0.0):
    checkpoint.save_checkpoint(folder, step, {"model.weight": torch.full((3,), value)}, {"step": step}, best)


def test_the_latest_and_the_best_checkpoint_are_kept_and_no_other(tmp_path):
    for step, best in ((1, True), (2, True), (3, False), (4, False)):
        save(tmp_path, step, best, float(step))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004"]
    for which, step in (("best", 2), ("latest", 4)):
        tensors, state = checkpoint.load_checkpoint(tmp_path, which)
        assert state == {"step": step} and tensors["model.weight"].tolist() == [step] * 3


@pytest.mark.parametrize("moment", ["atomic", "write_json", "fsync_folder"])
def test_a_crash_while_saving_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, moment):
    save(tmp_path, 1, value=1.0)
    with monkeypatch.context() as patch:

        def crash(*arguments, **named):
            raise RuntimeError("crash")

        patch.setattr(files, moment, crash)
        with pytest.raises(RuntimeError, match="crash"):
            save(tmp_path, 2, value=2.0)
    assert checkpoint.load_checkpoint(tmp_path, "latest")[1] == {"step": 1}
    save(tmp_path, 2, value=2.0)
    assert checkpoint.load_checkpoint(tmp_path, "latest")[1] == {"step": 2}


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    save(tmp_path, 1)
    path = tmp_path / "step-00000001" / "tensors.safetensors"
    _damage(path, damage)
    with pytest.raises(PacklmError, match=r"step-00000001/tensors\.safetensors: damaged: expected sha256"):
        checkpoint.load_checkpoint(tmp_path, "latest")


def _damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[:-4])
    else:
        content[-1] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizer_is_restored_to_the_bit(name):
    settings = config.Train(optimizer=name, momentum=0.9, lr=0.1)
    twins = []
    for _ in range(2):
        torch.manual_seed(1)
        layer = torch.nn.Linear(3, 2)
        twins.append((layer, build_optimizer(settings, layer)))

    def step(layer, optimizer, seed):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        layer(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()

    for layer, optimizer in twins:
        step(layer, optimizer, 5)
    (first, _), (second, old) = twins
    new = build_optimizer(settings, second)
    checkpoint.restore_optimizer(new, checkpoint.optimizer_tensors(old))
    step(*twins[0], 6)
    step(second, new, 6)
    assert torch.equal(first.weight, second.weight)


def test_metrics_after_the_checkpoint_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, 0)
    for step in range(5):
        writer.write(step, step * 10, {"train/loss": 1.0 / (step + 1)})
    with open(path, "a") as stream:
        stream.write('{"step": 5, "tok')  # a crash in the middle of a line
    MetricsWriter(path, 3).write(4, 40, {"train/loss": 9.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert json.loads(path.read_text().splitlines()[-1])["train/loss"] == 9.0
    MetricsWriter(path, 0)
    assert path.read_text() == ""


def test_a_meter_weighs_losses_by_tokens():
    meter = Meter()
    meter.add(10.0, 5, 1.0)
    meter.add(40.0, 10, 3.0)
    values = meter.read()
    assert values["train/loss"] == pytest.approx(50 / 15) and values["train/gradient_norm"] == 2.0
    meter.add(3.0, 3, 1.0)
    assert meter.read()["train/loss"] == 1.0


def test_schedules():
    constant = Schedule(config.Train(schedule="constant", lr=2.0), 100)
    assert constant.lr(0) == constant.lr(99) == 2.0
    cosine = Schedule(config.Train(schedule="cosine", lr=2.0, lr_floor=0.1, warmup_steps=9), 109)
    assert [cosine.lr(step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert cosine.lr(59) == pytest.approx(1.1) and cosine.lr(109) == pytest.approx(0.2)
    plateau = Schedule(config.Train(schedule="plateau", lr=2.0, plateau_factor=0.5), 100)
    for loss in (5.0, 4.0, 4.5, 3.0, 3.0):
        plateau.validated(loss)
    assert plateau.lr(50) == 0.5
    again = Schedule(config.Train(schedule="plateau", lr=2.0, plateau_factor=0.5), 100)
    again.restore(plateau.state())
    assert again.lr(50) == 0.5 and again.best == 3.0


@pytest.fixture
def folder(tmp_path):
    """A model folder of a tied model."""
    (tmp_path / "data").mkdir()
    for name in model_folder.TOKENIZER_FILES:
        (tmp_path / "data" / name).write_text("{}")
    settings = config.Model(hidden=(4, 6), embedding=6)
    about = {
        "name": "tiny", "model": settings.model_dump(mode="json"), "vocab_size": 9, "text": {}, "segments": "streams", "reset": "none",
        "lossless": False, "dataset": {"content": "0" * 64},
        "numbers": {"steps": 3, "tokens": 50, "validation": {"best": {"perplexity": 8.5, "tokens": 20, "step": 3}}},
    }  # fmt: skip
    model = build(settings, 9, seed=1)
    model_folder.save(tmp_path / "model", model_folder.weights_of(model), about, config.Generate(), tmp_path / "data")
    return tmp_path / "model", model


def test_a_model_comes_back_to_the_bit_and_says_what_it_is(folder):
    path, model = folder
    found, about = model_folder.load(path)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    assert found.projection.weight is found.embedding.weight and not found.training
    assert about.context == "streams" and "8.50" in (path / "README.md").read_text()
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_model_folder_that_is_incomplete_or_damaged_is_refused(folder, name):
    path, _ = folder
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-1] + b"?")
    with pytest.raises(PacklmError, match=f"{name}: damaged or exchanged: expected sha256"):
        model_folder.load(path)
    (path / name).unlink()
    with pytest.raises(RequestError, match=f"{name}: missing"):
        model_folder.load(path)


def test_another_format_another_shape_and_no_model_are_refused(folder, tmp_path):
    path, _ = folder
    with pytest.raises(RequestError, match="`make train`"):
        model_folder.load(tmp_path)
    values = files.read_json(path / "config.json")
    files.write_json(path / "config.json", values | {"vocab_size": 10})
    with pytest.raises(RequestError, match=r"embedding\.weight: expected shape \(10, 6\), found \(9, 6\)"):
        model_folder.load(path)
    files.write_json(path / "config.json", values | {"format": 99})
    with pytest.raises(RequestError, match="model format 99, this program reads 1"):
        model_folder.load(path)

"""What a training writes: checkpoints, metrics, the model folder; and the state of optimizers, schedule and averages."""

import itertools
import json
import math
import pickle
from typing import get_args

import pytest
import torch

from packlm import config
from packlm.base import files, sealed_json
from packlm.base.errors import PacklmError, RequestError
from packlm.model import folder as model_folder
from packlm.model.language_model import build
from tests.reference import random_batch
from tests.small_models import tokenizer_files
from train import checkpoint
from train.optim.averaging import Average
from train.optim.optimizers import build as build_optimizers
from train.optim.schedule import Schedule
from train.progress.metrics import Meter, MetricSums, MetricsWriter
from train.state import TrainState
from train.step import Update


def save(folder, step, value=0.0):
    checkpoint.save(folder, {"model.weight": torch.full((3,), value)}, TrainState(step=step))


def test_only_the_latest_checkpoints_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, float(step))
        checkpoint.prune(tmp_path, step, 2, 3 if step >= 3 else None)
    assert checkpoint.steps(tmp_path) == [3, 5, 6]
    for step in (3, 6):
        tensors, state = checkpoint.load(tmp_path, step)
        assert state == TrainState(step=step) and tensors["model.weight"].tolist() == [step] * 3
    # Later checkpoints are those of a training that was resumed from an earlier one.
    save(tmp_path, 4)
    checkpoint.prune(tmp_path, 4, 2, 3)
    assert checkpoint.steps(tmp_path) == [3, 4]


@pytest.mark.parametrize("moment", ["atomic", "write_json", "fsync_folder"])
def test_a_crash_while_saving_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, moment):
    save(tmp_path, 1, value=1.0)
    with monkeypatch.context() as patch:

        def crash(*arguments, **named):
            raise RuntimeError("crash")

        patch.setattr(files, moment, crash)
        with pytest.raises(RuntimeError, match="crash"):
            save(tmp_path, 2, value=2.0)
    assert checkpoint.latest(tmp_path) == 1
    checkpoint.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    save(tmp_path, 2, value=2.0)
    assert checkpoint.latest(tmp_path) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "state", "state-cut"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, caplog, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    _damage(tmp_path / "step-00000002", damage)
    assert checkpoint.latest(tmp_path) == 1
    named = "state.json: " if damage.startswith("state") else "tensors.safetensors: damaged: expected sha256"
    assert f"step-00000002/{named}" in caplog.text and "falling back to the checkpoint before it" in caplog.text
    _damage(tmp_path / "step-00000001", "flip")
    with pytest.raises(PacklmError, match=r"no usable checkpoint .*start over with --rebuild"):
        checkpoint.latest(tmp_path)


def test_a_state_of_a_wrong_type_names_file_and_key(tmp_path):
    save(tmp_path, 1)
    path = tmp_path / "step-00000001" / "state.json"
    content = files.read_json(path)
    for state, key in ({"step": "one"}, "state.step: "), ({"schedule": {"best": []}}, "state.schedule.best: "), ({"x": 1}, "state.x: "):
        files.write_json(path, content | {"state": content["state"] | state})
        with pytest.raises(PacklmError, match=rf"step-00000001/state\.json: {key}"):
            checkpoint.latest(tmp_path)
    files.write_json(path, content | {"version": 1})
    with pytest.raises(PacklmError, match=r"checkpoint format 1; this version of packlm reads format 3.*start over with --rebuild"):
        checkpoint.latest(tmp_path)


def _damage(folder, how):
    path = folder / ("state.json" if how.startswith("state") else "tensors.safetensors")
    content = bytearray(path.read_bytes())
    if how == "state":
        path.write_text('{"step": 2}')
    elif how == "delete":
        path.unlink()
    elif how in ("truncate", "state-cut"):
        path.write_bytes(content[:-4])
    else:
        content[-1] ^= 1
        path.write_bytes(content)


def test_an_unwritable_folder_is_noticed_at_once(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(PacklmError, match="checkpoints"):
        checkpoint.prepare(tmp_path / "checkpoints")


@pytest.mark.parametrize("name", get_args(config.Train.model_fields["optimizer"].annotation))
def test_an_optimizer_is_restored_to_the_bit(name):
    settings = config.Train(optimizer=name, momentum=0.9, lr=0.1)
    twins = []
    for _ in range(2):
        model = build(config.Model(hidden=4), 9, seed=1)
        twins.append((model, build_optimizers(settings, model)))

    def step(model, optimizers, seed):
        model.zero_grad()
        model(random_batch(seed, [3, 2], 9))[0].nll.backward()
        for optimizer in optimizers:
            optimizer.step()

    for model, optimizers in twins:
        step(model, optimizers, 5)
    (first, _), (second, old) = twins
    assert not torch.equal(first.embedding.weight, build(config.Model(hidden=4), 9, seed=1).embedding.weight)
    new = build_optimizers(settings, second)
    checkpoint.restore_optimizers(new, checkpoint.optimizer_tensors(old))
    step(*twins[0], 6)
    step(second, new, 6)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_weight_belongs_to_one_optimizer():
    model = build(config.Model(hidden=4, tied=True), 9, seed=1)
    for name in get_args(config.Train.model_fields["optimizer"].annotation):
        groups = [optimizer.param_groups[0]["params"] for optimizer in build_optimizers(config.Train(optimizer=name), model)]
        assert sorted(map(id, itertools.chain(*groups))) == sorted(map(id, model.parameters()))


def test_metrics_after_the_checkpoint_are_deleted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, 0, False)
    for step in range(5):
        writer.write(step, step * 10, {"train/loss": 1.0 / (step + 1)})
    writer.write(4, 40, {"validation/loss": 5.0})
    with open(path, "a") as stream:
        stream.write('{"step": 5, "tok')  # a crash in the middle of a line
    steps = lambda: [json.loads(line)["step"] for line in path.read_text().splitlines()]  # noqa: E731
    MetricsWriter(path, 4, True)
    assert steps() == [0, 1, 2, 3, 4, 4]
    MetricsWriter(path, 4, False)  # the validation was measured, but not recorded in the checkpoint
    assert steps() == [0, 1, 2, 3, 4]
    MetricsWriter(path, 3, False).write(4, 40, {"train/loss": 9.0})
    assert steps() == [0, 1, 2, 3, 4] and json.loads(path.read_text().splitlines()[-1])["train/loss"] == 9.0
    MetricsWriter(path, 0, False)
    assert path.read_text() == ""


def update(nll, tokens, norm, fill):
    return Update(nll, tokens, norm, fill, data_seconds=0.0, lr=1.0, stop=False)


def test_a_meter_weights_losses_by_tokens_and_resumes():
    meter = Meter(MetricSums())
    meter.add(update(10.0, 5, 1.0, 0.5), 0.5)
    meter = Meter(MetricSums.model_validate_json(meter.sums.model_dump_json()))
    meter.add(update(40.0, 10, 3.0, 1.0), 1.5)
    values = meter.read()
    assert values["train/loss"] == pytest.approx(50 / 15) and values["train/gradient_norm"] == 2.0 and values["train/fill"] == 0.75
    assert values["train/perplexity"] == pytest.approx(math.exp(50 / 15)) and values["train/epoch"] == 1.5
    meter.add(update(3.0, 3, None, 1.0), 1.8)
    values = meter.read()
    assert values["train/loss"] == 1.0 and "train/gradient_norm" not in values


def lrs(steps, total=100, epoch=0, **settings):
    schedule = Schedule(config.Train(lr=2.0, **settings), total)
    return [schedule.lr(step, epoch) for step in steps]


def test_schedules():
    assert lrs([0, 99], schedule="constant") == [2.0, 2.0]
    assert lrs([0, 4, 9, 59, 109], 109, schedule="cosine", lr_floor=0.1, warmup_steps=9) == pytest.approx([0.2, 1.0, 2.0, 1.1, 0.2])
    assert lrs([0, 50, 100], schedule="linear", lr_floor=0.5) == pytest.approx([2.0, 1.5, 1.0])
    assert lrs([3, 4, 16, 100], schedule="inverse_sqrt", warmup_steps=4) == pytest.approx([1.6, 2.0, 1.0, 0.4])
    assert lrs([0, 60, 80, 100], schedule="wsd", decay_share=0.4, lr_floor=0.0) == pytest.approx([2.0, 2.0, 1.0, 0.0])
    # Zaremba et al. 2014, section 4.1: "we train the model for 13 epochs with a learning rate of 1 and after 4 epochs we decrease it by 2".
    by_epoch = [lrs([0], epoch=epoch, schedule="zaremba", lr_factor=0.5, flat_epochs=4)[0] for epoch in range(6)]
    assert by_epoch == [2.0, 2.0, 2.0, 2.0, 1.0, 0.5]


def test_what_validations_change_is_restored():
    settings = config.Train(schedule="plateau", lr=2.0, lr_factor=0.5, patience=3)
    plateau, again = Schedule(settings, 100), Schedule(settings, 100)
    assert [plateau.validated(loss) for loss in (5.0, 4.0, 4.5, 3.0, 3.0)] == [True, True, False, True, False]
    again.restore(plateau.state())
    assert again.lr(50, 0) == plateau.lr(50, 0) == 0.5
    assert [again.exhausted for loss in (3.5, 3.0) if not again.validated(loss)] == [False, True]
    assert not Schedule(config.Train(), 100).exhausted


def test_an_exponential_average_follows_the_weights_and_is_used_within_its_block():
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data[:] = 1.0
    average = Average(config.Train(ema=0.5), layer)
    expected = 1.0
    for count, value in enumerate([2.0, 4.0, 8.0], 2):
        layer.weight.data[:] = value
        average.updated()
        decay = min(0.5, count / (9 + count))
        expected = decay * expected + (1 - decay) * value
    with average.in_use():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 8.0


def test_nt_asgd_averages_from_its_trigger_on():
    """By algorithm 1 of Merity et al. 2017: a validation worse than the best of those more than n before it."""
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(config.Train(optimizer="nt-asgd", nt_interval=2), layer)
    assert [average.validated(loss) for loss in (5.0, 4.0, 4.5, 4.4)] == [False] * 4  # 4.4 < 5.0, all that is two before it
    layer.weight.data[:] = 1.0
    average.updated()
    assert average.mean is None
    assert average.validated(4.1) and not average.validated(9.0)
    for value in (2.0, 6.0):
        layer.weight.data[:] = value
        average.updated()
    with average.in_use():
        assert layer.weight.item() == pytest.approx((1 + 2 + 6) / 3)


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
        "numbers": {
            "steps": 3, "tokens": 50, "validation": {"best": {"perplexity": 8.5, "tokens": 20, "step": 3}},
            "data": {"train": {"documents": 2, "sentences": 5, "tokens": 50, "words": 1234, "unknown": 1}},
        },
    }  # fmt: skip
    model = build(settings, 9, seed=1)
    model_folder.save(tmp_path / "model", model_folder.weights_of(model), about, config.Generate(), tokenizer_files(tmp_path / "data"))
    return tmp_path / "model", model


def test_a_model_comes_back_to_the_bit_and_says_what_it_is(folder):
    path, model = folder
    found, about = model_folder.load(path)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    assert found.projection.weight is found.embedding.weight and not found.training
    card = (path / "README.md").read_text()
    assert about.context == "streams" and "8.50" in card and "without an end" in card
    assert "| train | 2 | 5 | 50 | 1,234 | 2.00% |" in card
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


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_unopened(folder, tmp_path):
    path, _ = folder
    weights, trap = path / "model.safetensors", pickle.dumps(_Trap(tmp_path / "sprung"))
    weights.write_bytes(trap)
    values = files.read_json(path / "config.json") | {"weights": files.sha256(weights)}
    sealed_json.write(path / "config.json", {key: value for key, value in values.items() if key != sealed_json.KEY})
    with pytest.raises(PacklmError, match=r"model\.safetensors: not a safetensors file"):
        model_folder.load(path)
    weights.rename(path / "pytorch_model.bin")
    with pytest.raises(RequestError, match=r"safetensors: missing; .*; pytorch_model\.bin may be a pickle, .* never opened"):
        model_folder.load(path)
    assert not (tmp_path / "sprung").exists()


def test_another_format_another_shape_and_no_model_are_refused(folder, tmp_path):
    path, _ = folder
    with pytest.raises(RequestError, match="`packlm train`"):
        model_folder.load(tmp_path / "nowhere")
    values = files.read_json(path / "config.json")
    del values["digest"]
    sealed_json.write(path / "config.json", values | {"vocab_size": 10})
    with pytest.raises(RequestError, match=r"embedding\.weight: expected shape \(10, 6\), found \(9, 6\)"):
        model_folder.load(path)
    files.write_json(path / "config.json", values | {"format": 99})
    with pytest.raises(RequestError, match="model format 99, this program reads 1"):
        model_folder.load(path)


def test_other_files_and_folders_beside_the_checkpoints_are_left_alone(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    others = [tmp_path / name for name in ("step-abc", "step-00000002.copy", "step-", "step-١٢٣٤٥٦٧٨", "step-" + "9" * 40, "notes")]
    for other in others:
        other.mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    assert checkpoint.steps(tmp_path) == [1, 2] and checkpoint.latest(tmp_path) == 2
    checkpoint.prune(tmp_path, 2, 1, None)
    assert checkpoint.steps(tmp_path) == [2] and all(other.is_dir() for other in others) and (tmp_path / "step-00000009").is_file()

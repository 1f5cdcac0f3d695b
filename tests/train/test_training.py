"""Training gives the same numbers on 1, 2 and 4 ranks, and after a stop as without one."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm import config, dataset, distributed
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.dataset.views import Sentences, Stream
from packlm.evaluation.evaluate import ModelScorer, Result, Validation, evaluate, resolve_context
from packlm.model import folder as model_folder
from packlm.model.language_model import build
from tests.ranks import run_on_ranks
from tests.reference import one_by_one, one_segment
from train import checkpoint, record, setup, stage
from train.batches.mixture import open_mixture
from train.gradient_reduction import GradientReduction
from train.state import TrainState
from train.trainer import Trainer

KINDS = {
    "sentences": {"segments": "sentences", "layout": "packed", "global_batch_tokens": 25, "ema": 0.8},
    "rows": {"segments": "rows", "layout": "rectangle", "global_batch_tokens": 25, "optimizer": "rmsprop", "lr": 1e-3},
    "streams": {"segments": "streams", "streams": 4, "window": 9, "window_drawn": True, "optimizer": "sgd", "momentum": 0.9, "lr": 0.5},
    "nt-asgd": {"segments": "streams", "streams": 4, "window": 9, "optimizer": "nt-asgd", "lr": 6.0, "validate_every": 3, "nt_interval": 1},
}
REGULARIZED = {"dropout": 0.2, "dropout_embedding": 0.1, "weight_drop": 0.3, "locked": True}
MACHINE_DEPENDENT = ("time", "train/tokens_per_second", "train/data_wait", "train/memory_mb")
STOPS = (5, 13)
TWO_KINDS = ("sentences", "streams")


def settings(data: Path, run: Path, kind: str, **train) -> config.Config:
    values = {"precision": "float64", "epochs": 3, "max_steps": 24, "validate_every": 10, "log_every": 4, "lr": 1e-2, "device": "cpu"}
    values |= {"ar": 2.0, "tar": 1.0, "samples": 0}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""},
        "model": {"hidden": 6, "cell": "lstm"} | REGULARIZED, "train": values | KINDS[kind] | train,
    })  # fmt: skip


class Interrupted(Trainer):
    """A training in which the last rank is sent SIGTERM during the update after `at` others."""

    at = -1

    def update(self, stop):
        if self.state.step == self.at and self.ranks.rank == self.ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().update(stop)


def train_once(ranks: distributed.Ranks, settings: config.Config, stops: tuple[int, ...] = ()) -> None:
    """Trains; with `stops`, interrupted and resumed."""
    manifest = dataset.read_manifest(settings.dataset.dir)
    for stop in stops:
        trainer = Interrupted(settings, manifest, ranks)
        trainer.at = stop
        with pytest.raises(Stopped):
            trainer.run()
        # All ranks stop after the same update: at the latest the one after the signal.
        assert stop < trainer.state.step <= stop + 2
    Trainer(settings, manifest, ranks).run()


def train_all(data: Path, runs: Path) -> None:
    """Every kind, undisturbed and stopped twice; in float32; in fixed parts; in several passes: all by the same ranks."""
    with distributed.start("cpu") as ranks:
        for kind in KINDS:
            train_once(ranks, settings(data, runs / kind, kind))
            train_once(ranks, settings(data, runs / f"{kind}-stopped", kind), STOPS)
        for kind in TWO_KINDS:
            single = {"precision": "float32", "validate_every": 25}
            train_once(ranks, settings(data, runs / f"{kind}-float32", kind, **single, max_steps=50, epochs=9))
            train_once(ranks, settings(data, runs / f"{kind}-bitwise", kind, **single, bitwise=4))
            train_once(ranks, settings(data, runs / f"{kind}-passes", kind, accumulate=4 // ranks.world))


@pytest.fixture(scope="module")
def runs(random_data, tmp_path_factory):
    """World size -> folder with the runs of `train_all`."""
    folders = {}
    for world in (1, 2, 4):
        folders[world] = tmp_path_factory.mktemp(f"world{world}")
        run_on_ranks(world, train_all, random_data.folder, folders[world])
    return folders


def metrics(run: Path, *without: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in (*MACHINE_DEPENDENT, *without)} for line in lines]


def tensors(run: Path, step: int = 24) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "train" / "checkpoints", step)[0]


def assert_alike(one: Path, other: Path, relative: float) -> None:
    """The same lines of metrics to a relative tolerance, except `train/fill`, which depends on how a batch is divided."""
    first, second = metrics(one, "train/fill"), metrics(other, "train/fill")
    assert len(first) == len(second) and first[-1]["step"] in (24, 50)
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        assert all(left[key] == pytest.approx(right[key], rel=relative) for key in left), (left, right)


def assert_equal(one: Path, other: Path) -> None:
    """The same metrics and the same checkpoint, bit for bit."""
    assert metrics(one) == metrics(other)
    expected, actual = tensors(one), tensors(other)
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_take_the_same_steps_as_one_process(runs, kind, world):
    assert_alike(runs[1] / kind, runs[world] / kind, 1e-12)


@pytest.mark.parametrize("kind", TWO_KINDS)
@pytest.mark.parametrize("world", [2, 4])
def test_fifty_steps_in_float32_are_the_same_to_a_millionth(runs, kind, world):
    assert_alike(runs[1] / f"{kind}-float32", runs[world] / f"{kind}-float32", 1e-6)


@pytest.mark.parametrize("kind", TWO_KINDS)
@pytest.mark.parametrize("world", [2, 4])
def test_fixed_parts_are_the_same_to_the_last_bit_on_any_number_of_ranks(runs, kind, world):
    assert_equal(runs[1] / f"{kind}-bitwise", runs[world] / f"{kind}-bitwise")
    assert tensors(runs[1] / f"{kind}-bitwise")["model.embedding.weight"].dtype == torch.float32


@pytest.mark.parametrize("kind", TWO_KINDS)
@pytest.mark.parametrize("world", [1, 2])
def test_several_passes_add_up_to_one(runs, kind, world):
    assert_alike(runs[1] / kind, runs[world] / f"{kind}-passes", 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_stopped_training_ends_bit_for_bit_as_an_undisturbed_one(runs, kind, world):
    assert_equal(runs[world] / kind, runs[world] / f"{kind}-stopped")
    names = tensors(runs[world] / kind).keys()
    assert any(name.startswith("optimizer.") for name in names) == (kind != "nt-asgd")  # plain SGD has no state
    assert any(name.startswith("carried.") for name in names) == (kind in ("streams", "nt-asgd"))
    assert any(name.startswith("average.") for name in names) == (kind in ("sentences", "nt-asgd"))


def test_nt_asgd_is_triggered_after_a_stop_as_it_is_without(runs):
    """The test above says something about averaging only if it began, and between the stops."""
    state = checkpoint.load(runs[1] / "nt-asgd" / "train" / "checkpoints", 24)[1]
    first = 24 + 1 - state.average.count
    assert STOPS[0] < first < 24 and len(state.average.losses) == first // 3


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_writes_a_model_folder(runs, random_data, kind):
    run = runs[1] / kind
    summary = files.read_json(run / "train" / "summary.json")
    best = summary["validation"]["best"]
    assert best["loss"] < summary["validation"]["before"]["loss"]
    assert summary["steps"] == 24 and best["tokens"] == random_data.manifest.split("validation").tokens
    model, about = model_folder.load(run / "model")
    assert about.numbers.steps == 24
    saved = tensors(run, best["step"])
    assert torch.equal(model.embedding.weight, saved.get("average.embedding.weight", saved["model.embedding.weight"]))
    # The weights of the folder are those that were validated.
    context = resolve_context("auto", about.context)
    views = Sentences.open(*random_data, "validation"), Stream.open(*random_data, "validation")
    ranks = distributed.Ranks(0, 1, torch.device("cpu"))
    assert evaluate(ModelScorer(model), *views, context, 1, 100, ranks).loss == pytest.approx(best["loss"], rel=1e-12)


@pytest.mark.long
def test_four_two_and_four_ranks_resume_from_each_others_checkpoints(random_data, runs, tmp_path):
    """With streams, whose carried states move between ranks."""
    for world, stop in ((4, 5), (2, 11), (4, 17)):
        run_on_ranks(world, train_until, random_data.folder, tmp_path, stop)
    expected, lines = metrics(runs[1] / "streams", "train/fill"), metrics(tmp_path, "train/fill")
    assert len(lines) == len([line for line in expected if line["step"] <= 19]) > 5
    for one, other in zip(expected, lines, strict=False):
        assert all(one[key] == pytest.approx(other[key], rel=1e-12) for key in one), (one, other)


def train_until(data: Path, run: Path, stop: int) -> None:
    with distributed.start("cpu") as ranks:
        trainer = Interrupted(settings(data, run, "streams"), dataset.read_manifest(data), ranks)
        trainer.at = stop
        with pytest.raises(Stopped):
            trainer.run()


class WorkerDied(Exception):
    """Stands for the death of a process."""


@pytest.mark.parametrize("moment", ["before it is recorded", "after"])
@pytest.mark.parametrize("kind", ["sentences", "nt-asgd"])
def test_a_training_that_died_at_a_validation_repeats_it(runs, random_data, tmp_path, monkeypatch, kind, moment):
    """Just before a validation is recorded in its checkpoint, and just after; at each of the validations in turn."""
    ranks, seen = distributed.Ranks(0, 1, torch.device("cpu")), set()
    replace_state, validate = checkpoint.replace_state, Trainer.validate

    def die_once(step: int) -> None:
        if step not in seen:
            seen.add(step)
            raise WorkerDied

    def die_and_replace(folder, state):
        die_once(state.step)
        replace_state(folder, state)

    def validate_and_die(trainer):
        validate(trainer)
        die_once(trainer.state.step)

    if moment == "before it is recorded":
        monkeypatch.setattr(checkpoint, "replace_state", die_and_replace)
    else:
        monkeypatch.setattr(Trainer, "validate", validate_and_die)
    for _ in range(20):
        try:
            Trainer(settings(random_data.folder, tmp_path, kind), random_data.manifest, ranks).run()
            break
        except WorkerDied:
            continue
    assert len(seen) >= 3
    assert_equal(runs[1] / kind, tmp_path)


def test_an_update_starts_from_the_final_states_of_the_one_before(random_data, tmp_path):
    """Two windows of each stream, against each stream read through by itself."""
    constant = settings(random_data.folder, tmp_path, "nt-asgd", lr=1e-30, reset="none", ar=0.0, tar=0.0)
    constant = constant.model_copy(update={"model": config.Model(hidden=6, dropout=0)})
    trainer = Trainer(constant, random_data.manifest, distributed.Ranks(0, 1, torch.device("cpu")))
    losses = [trainer.update(stop=False).nll for _ in range(2)]
    stream, model = trainer.plan.stream, trainer.model
    first, second = 0.0, 0.0
    for start in trainer.plan.bounds[:-1]:
        one, state = one_by_one(model, one_segment(*stream.read(start, start + 9)), model.recurrence.zero_state(1))
        other, _ = one_by_one(model, one_segment(*stream.read(start + 9, start + 18)), state)
        first, second = first + one.item(), second + other.item()
    assert losses == pytest.approx([first, second], rel=1e-12)


def test_a_part_whose_streams_have_all_ended_takes_no_part_in_the_step(random_data, tmp_path):
    """Streams are equal to within one target: the last window may be one target of some streams, and nothing of others."""
    tokens = random_data.manifest.split("train").tokens
    streams, window = next((s, w) for s in range(4, 40) for w in range(2, 40) if 0 < tokens % s < 4 and tokens // s % w == 0)
    results = []
    for parts in (1, 4):
        shape = {"streams": streams, "window": window, "window_drawn": False, "accumulate": parts}
        in_parts = settings(random_data.folder, tmp_path / str(parts), "streams", **shape)
        trainer = Trainer(in_parts, random_data.manifest, distributed.Ranks(0, 1, torch.device("cpu")))
        last = trainer.plan.steps(0) - 1
        sizes = [len(trainer.plan.share(0, last, part, parts).targets) for part in range(parts)]
        assert sum(sizes) == tokens % streams and (parts == 1 or 0 in sizes)
        losses = [trainer.update(stop=False).nll for _ in range(last + 3)]
        results.append(losses + torch.cat([states[0] for states in trainer.carried], 1).flatten().tolist())
    assert results[0] == pytest.approx(results[1], rel=1e-10)


@pytest.mark.parametrize(("ar", "tar"), [(0.0, 0.0), (2.0, 3.0)])
def test_the_first_update_is_the_gradient_of_the_mean_over_the_global_batch(random_data, tmp_path, ar, tar):
    """One step of plain gradient descent against sentences run one by one, summed, and divided by their tokens, as is AR; TAR is divided
    by the number of pairs of neighbouring tokens."""
    folder, manifest = random_data
    one_step = settings(folder, tmp_path, "sentences", optimizer="sgd", lr=1.0, clip=0.0, schedule="constant", max_steps=1, ar=ar, tar=tar)
    one_step = one_step.model_copy(update={"model": config.Model(hidden=6, dropout=0)})
    with distributed.start("cpu") as ranks:
        trainer = Trainer(one_step, manifest, ranks)
        indices = trainer.plan.indices(0, 0)
        trainer.run()
    model = build(one_step.model, manifest.vocab_size, one_step.run.seed).double()
    sentences = Sentences.open(folder, manifest, "train")
    total, squares, changes = 0.0, [], []
    for index in indices:
        targets = sentences.targets(int(index))
        batch = one_segment(np.concatenate([[0], targets[:-1]]), targets)
        nll, _ = one_by_one(model, batch, model.recurrence.zero_state(1), ar=squares, tar=changes)
        total = total + nll
    assert len(squares) == len(changes) + len(indices)
    loss = (total + ar * sum(squares)) / len(squares) + tar * sum(changes) / len(changes)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for before, gradient, after in zip(model.parameters(), gradients, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(before - gradient, after, rtol=1e-10, atol=1e-12)


def test_no_state_and_no_gradient_crosses_a_document(random_data, tmp_path):
    """With `train.reset`, nothing in a document depends on the documents before it."""
    folder, manifest = random_data
    with distributed.start("cpu") as ranks:
        trainer = Trainer(settings(folder, tmp_path, "streams", streams=1, window=9), manifest, ranks)
    plan, model = trainer.plan, trainer.model
    opens = set(plan.stream.opens.tolist())
    for step in range(plan.steps(0)):
        share = plan.share(0, step, 0, 1)
        firsts = share.inputs[np.cumsum(share.lengths) - share.lengths]
        for key, take, first in zip(share.keys.tolist(), share.initial_streams, firsts, strict=True):
            assert key not in opens or (take == -1 and first == plan.stream.eos)
    # The loss of a later segment of a window does not depend on the inputs of the first.
    share = next(share for step in itertools.count() if len((share := plan.share(0, step, 0, 1)).lengths) > 1)
    batch = share.batch(torch.device("cpu"))
    rows = model.embedding(batch.inputs).detach().requires_grad_()
    hidden, _ = model.recurrence(lambda ids: rows[ids], torch.arange(len(rows)), batch.lengths, None, "rectangle", True)
    hidden[int(batch.lengths[0]) :].sum().backward()
    assert rows.grad[: int(batch.lengths[0])].abs().max() == 0 and rows.grad[int(batch.lengths[0]) :].abs().max() > 0


@pytest.mark.parametrize("kind", ["rows", "sentences"])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_batch(random_data, tmp_path, kind):
    with distributed.start("cpu") as ranks:
        trainer = Trainer(settings(random_data.folder, tmp_path, kind), random_data.manifest, ranks)
        trainer.model.projection.bias.data[3] = float("nan")
        before = trainer.model.embedding.weight.detach().clone()
        keys = trainer.plan.share(0, 0, 0, 1).keys.tolist()
        named = rf"epoch 1, step 1: loss nan.*The batch: {trainer.plan.unit} {', '.join(map(str, keys[:2]))}"
        with pytest.raises(PacklmError, match=named):
            trainer.update(stop=False)
        assert torch.equal(before, trainer.model.embedding.weight)
        assert files.read_json(tmp_path / "train" / "not_finite.json")[trainer.plan.unit] == keys


def test_a_training_of_other_settings_is_refused_with_the_differences(random_data, tmp_path):
    folder, manifest = random_data
    first, second = settings(folder, tmp_path, "rows"), settings(folder, tmp_path, "rows", lr=0.5)
    assert not record.is_complete(tmp_path, record.inputs_of(first, manifest))
    record.begin(record.Place(tmp_path, False), record.inputs_of(first, manifest))
    assert not record.is_complete(tmp_path, record.inputs_of(second, manifest))  # it has made no step
    checkpoint.save(tmp_path / "train" / "checkpoints", {}, TrainState(step=1))
    assert not record.is_complete(tmp_path, record.inputs_of(first, manifest))
    with pytest.raises(RequestError, match=r"train\.lr: 0\.001 -> 0\.5"):
        record.is_complete(tmp_path, record.inputs_of(second, manifest))


def test_a_training_is_complete_until_its_model_is_damaged_and_is_then_exported_again(random_data, tmp_path, monkeypatch):
    small = settings(random_data.folder, tmp_path, "rows", max_steps=2)
    stage.run(small, random_data.manifest)
    weights = tmp_path / "model" / "model.safetensors"
    exported, inputs = weights.read_bytes(), record.inputs_of(small, random_data.manifest)
    assert record.is_complete(tmp_path, inputs)
    weights.write_bytes(exported[:-1])
    assert not record.is_complete(tmp_path, inputs)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", lambda *arguments: pytest.fail("trained again"))
        stage.run(small, random_data.manifest)
    assert weights.read_bytes() == exported and record.is_complete(tmp_path, inputs)
    (tmp_path / "train" / "settings.json").write_text('{"model": 3}')
    with pytest.raises(PacklmError, match=r"settings\.json: model: "):
        stage.run(small, random_data.manifest)


def test_more_parts_than_streams_and_parts_that_do_not_divide_are_refused(random_data, tmp_path):
    def open_plan(config, ranks):
        return setup.open_plan(config, open_mixture(config, random_data.manifest), ranks)

    five, three = (distributed.Ranks(0, world, torch.device("cpu")) for world in (5, 3))
    with pytest.raises(RequestError, match=r"train\.streams: 4 streams for 5 processes"):
        open_plan(settings(random_data.folder, tmp_path, "streams"), five)
    with pytest.raises(RequestError, match=r"train\.streams: 4 streams for 6 parts of a batch"):
        open_plan(settings(random_data.folder, tmp_path, "streams", accumulate=2), three)
    with pytest.raises(RequestError, match=r"train\.bitwise: 4 parts cannot be shared equally by 3 processes"):
        GradientReduction(torch.nn.Linear(1, 1), three, 1, 4)


def test_the_learning_rate_of_an_update_is_proportional_to_its_window(random_data, tmp_path):
    with distributed.start("cpu") as ranks:
        plain = {"schedule": "constant", "momentum": 0.0, "clip": 0.0}
        trainer = Trainer(settings(random_data.folder, tmp_path, "streams", **plain), random_data.manifest, ranks)
    share = trainer.plan.share(0, 0, 0, 1).window / trainer.config.train.window
    before = trainer.model.projection.bias.detach().clone()
    update = trainer.update(stop=False)
    assert share != 1.0 and update.lr == pytest.approx(0.5 * share)
    torch.testing.assert_close(before - trainer.model.projection.bias, update.lr * trainer.model.projection.bias.grad)


def test_early_stopping_ends_a_training_after_validations_without_improvement(random_data, tmp_path, monkeypatch):
    losses = iter([9.0, 5.0, 4.0, 4.5, 4.2, 4.1, 1.0])
    monkeypatch.setattr(Validation, "measure", lambda *arguments: Result(next(losses) * 10, 10))
    with distributed.start("cpu") as ranks:
        Trainer(settings(random_data.folder, tmp_path, "rows", validate_every=2, patience=3), random_data.manifest, ranks).run()
    summary = files.read_json(tmp_path / "train" / "summary.json")
    assert summary["steps"] == 10 and summary["validation"]["best"]["step"] == 4

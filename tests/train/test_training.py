"""Training is the same on 1, 2 and 4 ranks, and the same after a stop as without one."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import config, dataset, files
from pipeline.errors import PacklmError, RequestError, Stopped
from tests.train.gangs import run_on_ranks
from tests.train.reference import one_by_one
from train import checkpoint, distributed, model_folder, record
from train.batches import Segments
from train.model import build
from train.trainer import Trainer
from train.views import Sentences

SEGMENTS = {
    "sentences": {"segments": "sentences", "layout": "packed", "global_batch_tokens": 25},
    "rows": {"segments": "rows", "layout": "rectangle", "global_batch_tokens": 25},
    "streams": {"segments": "streams", "streams": 4, "window": 9, "optimizer": "sgd", "momentum": 0.9, "lr": 0.5},
}
REGULARIZED = {"dropout": 0.2, "dropout_embedding": 0.1, "weight_drop": 0.3, "locked": True}


def settings(data: Path, run: Path, kind: str, **train) -> config.Config:
    values = {"precision": "float64", "epochs": 3, "max_steps": 24, "validate_every": 10, "log_every": 1, "lr": 1e-2, "device": "cpu"}
    values |= {"ar": 2.0, "tar": 1.0}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""},
        "model": {"hidden": 6, "cell": "lstm"} | REGULARIZED, "train": values | SEGMENTS[kind] | train,
    })  # fmt: skip


class Interrupted(Trainer):
    """A training in which the last rank is sent SIGTERM during the update after `at` others."""

    at = -1

    def update(self, stop):
        if self.position.step == self.at and self.ranks.rank == self.ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().update(stop)


def train_once(ranks: distributed.Ranks, data: Path, run: Path, kind: str, stops: tuple[int, ...] = ()) -> None:
    """Trains; with `stops`, in several goes."""
    made, manifest = settings(data, run, kind), dataset.read_manifest(data)
    for stop in stops:
        trainer = Interrupted(made, manifest, ranks)
        trainer.at = stop
        with pytest.raises(Stopped, match=f"after step {stop + 2}"):
            trainer.run()
    Trainer(made, manifest, ranks).run()


def train_all(data: Path, runs: Path) -> None:
    """Every kind of segments, undisturbed and stopped twice, in one gang."""
    with distributed.start("cpu") as ranks:
        for kind in SEGMENTS:
            train_once(ranks, data, runs / kind, kind)
            train_once(ranks, data, runs / f"{kind}-stopped", kind, stops=(5, 13))


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):
    """World size -> folder with the runs of `train_all`."""
    folders = {}
    for world in (1, 2, 4):
        folders[world] = tmp_path_factory.mktemp(f"world{world}")
        run_on_ranks(world, train_all, made[0], folders[world])
    return folders


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "train/tokens_per_second")} for line in lines]


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_take_the_same_steps_as_one_process(runs, kind, world):
    alone, together = metrics(runs[1] / kind), metrics(runs[world] / kind)
    assert len(alone) == len(together) and alone[-1]["step"] == 24
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        assert all(one[key] == pytest.approx(other[key], rel=1e-11) for key in one), (one, other)


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_stopped_training_ends_bit_for_bit_as_an_undisturbed_one(runs, kind, world):
    whole, stopped = (runs[world] / name for name in (kind, f"{kind}-stopped"))
    assert metrics(whole) == metrics(stopped)
    for which in ("latest", "best"):
        expected, found = (checkpoint.load_checkpoint(run / "train" / "checkpoints", which)[0] for run in (whole, stopped))
        assert expected.keys() == found.keys()
        assert any(name.startswith("optimizer.") for name in found)
        assert (kind == "streams") == any(name.startswith("carried.") for name in found)
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("kind", SEGMENTS)
def test_training_learns_and_leaves_a_model_folder(runs, made, kind):
    run = runs[1] / kind
    summary = files.read_json(run / "train" / "summary.json")
    assert summary["validation"]["best"]["loss"] < summary["validation"]["before"]["loss"]
    assert summary["steps"] == 24 and summary["validation"]["best"]["tokens"] == made[1].split("validation").tokens
    model, about = model_folder.load(run / "model")
    assert about.numbers["steps"] == 24
    best, _ = checkpoint.load_checkpoint(run / "train" / "checkpoints", "best")
    assert torch.equal(model.embedding.weight, best["model.embedding.weight"])


def test_another_number_of_ranks_goes_on_from_the_checkpoint(made, runs, tmp_path):
    """Streams: the carried states of 1 rank are taken up by 2, and theirs by 4."""
    for world, stops in ((1, (5,)), (2, (11,)), (4, (17,))):
        run_on_ranks(world, go_on_until, made[0], tmp_path, stops[0])
    alone = metrics(runs[1] / "streams")
    found = metrics(tmp_path)
    assert len(found) == len([line for line in alone if line["step"] <= 19])
    for one, other in zip(alone, found, strict=False):
        assert all(one[key] == pytest.approx(other[key], rel=1e-11) for key in one), (one, other)


def go_on_until(data: Path, run: Path, stop: int) -> None:
    with distributed.start("cpu") as ranks:
        trainer = Interrupted(settings(data, run, "streams"), dataset.read_manifest(data), ranks)
        trainer.at = stop
        with pytest.raises(Stopped):
            trainer.run()


@pytest.mark.parametrize(("ar", "tar"), [(0.0, 0.0), (2.0, 3.0)])
def test_the_first_update_is_the_gradient_of_the_mean_over_the_global_batch(made, tmp_path, ar, tar):
    """One step of plain gradient descent against sentences run one by one, summed, and divided by their tokens; AR's squares by their
    tokens too, TAR's by the number of pairs of neighbours."""
    folder, manifest = made
    made_up = settings(folder, tmp_path, "sentences", optimizer="sgd", lr=1.0, clip=0.0, schedule="constant", max_steps=1, ar=ar, tar=tar)
    made_up = made_up.model_copy(update={"model": config.Model(hidden=6)})
    with distributed.start("cpu") as ranks:
        trainer = Trainer(made_up, manifest, ranks)
        indices = trainer.plan.indices(0, 0)
        trainer.run()
    model = build(made_up.model, manifest.vocab_size, made_up.run.seed).double()
    sentences = Sentences.open(folder, manifest, "train")
    total, squares, changes = 0.0, [], []
    for index in indices:
        targets = sentences.targets(int(index))
        batch = Segments([np.concatenate([[0], targets[:-1]])], [targets], [0], 0, 0).batch(torch.device("cpu"))
        nll, _ = one_by_one(model, batch, model.recurrence.zero_state(1), ar=squares, tar=changes)
        total = total + nll
    assert len(squares) == len(changes) + len(indices)
    loss = (total + ar * sum(squares)) / len(squares) + tar * sum(changes) / len(changes)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for before, gradient, after in zip(model.parameters(), gradients, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(before - gradient, after, rtol=1e-10, atol=1e-12)


def test_no_state_and_no_gradient_crosses_a_document(made, tmp_path):
    """With the reset, changing every id of the documents before one changes nothing in it."""
    folder, manifest = made
    with distributed.start("cpu") as ranks:
        trainer = Trainer(settings(folder, tmp_path, "streams", streams=1, window=9), manifest, ranks)
    plan, model = trainer.plan, trainer.model
    for step in range(plan.num_steps):
        share = plan.share(0, step, 0, 1)
        opening = [number for number, key in enumerate(share.keys) if plan.stream.opens_at(key)]
        for number in opening:
            assert share.take[number] == -1
            assert share.inputs[number][0] == plan.stream.eos
    # A segment is a row of its own: what precedes it in the window is not among its inputs.
    share = next(share for step in itertools.count() if len((share := plan.share(0, step, 0, 1)).targets) > 1)
    batch = share.batch(torch.device("cpu"))
    rows = model.embedding(batch.inputs).detach().requires_grad_()
    hidden, _ = model.recurrence(lambda ids: rows[ids], torch.arange(len(rows)), batch.lengths, None, "rectangle", True)
    hidden[int(batch.lengths[0]) :].sum().backward()
    assert rows.grad[: int(batch.lengths[0])].abs().max() == 0 and rows.grad[int(batch.lengths[0]) :].abs().max() > 0


def test_a_loss_that_is_not_finite_stops_before_the_update(made, tmp_path):
    with distributed.start("cpu") as ranks:
        trainer = Trainer(settings(made[0], tmp_path, "rows"), made[1], ranks)
        trainer.model.projection.bias.data[3] = float("nan")
        before = trainer.model.embedding.weight.detach().clone()
        trainer.metrics = None
        with pytest.raises(PacklmError, match=r"step 1 \(epoch 0, batch 0\): loss nan"):
            trainer.update(stop=False)
        assert torch.equal(before, trainer.model.embedding.weight)


def test_a_training_of_other_settings_is_refused_with_the_differences(made, tmp_path):
    folder, manifest = made
    first, second = settings(folder, tmp_path, "rows"), settings(folder, tmp_path, "rows", lr=0.5)
    assert not record.is_complete(tmp_path, record.settings_of(first, manifest))
    files.write_json(tmp_path / "train" / "settings.json", record.settings_of(first, manifest))
    assert not record.is_complete(tmp_path, record.settings_of(first, manifest))
    with pytest.raises(RequestError, match=r"train\.lr: 0\.01 -> 0\.5"):
        record.is_complete(tmp_path, record.settings_of(second, manifest))


def test_more_ranks_than_streams_are_refused(made, tmp_path):
    ranks = distributed.Ranks(0, 5, torch.device("cpu"))
    from train.trainer import open_plan

    with pytest.raises(RequestError, match=r"train\.streams: 4 streams for 5 processes"):
        open_plan(settings(made[0], tmp_path, "streams"), made[1], ranks)

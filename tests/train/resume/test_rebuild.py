"""Nothing of a finished training is lost before a request is known to be right and its result is complete.

What stands in a run's folder survives a request that is refused, a rebuild that is killed at any moment, and one that fails; and what
never made a step is in nobody's way.
"""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from packlm import config, tracking
from packlm.base import files, json_lines
from packlm.base.errors import PacklmError, RequestError
from packlm.model import folder as model_folder
from packlm.tracking.recorder import Recorder
from packlm.tracking.spool import Spool, TrackingRecord
from train import checkpoint, record, stage
from train.progress.metrics import MetricLine
from train.trainer import Trainer


def settings(data: Path, run: Path, hidden: int = 8, **train: Any) -> config.Config:
    values = {"segments": "streams", "streams": 4, "window": 5, "epochs": 9, "max_steps": 6, "device": "cpu", "samples": 0}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": hidden},
        "train": values | {"checkpoint_every": 2, "validate_every": 3, "log_every": 1} | train,
    })  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(random_data, tmp_path):
    """A run's folder with a finished training."""
    stage.run(settings(random_data.folder, tmp_path / "run"), random_data.manifest)
    return tmp_path / "run"


class Killed(BaseException):
    """Stands for the death of a process."""


WRONG: dict[str, dict[str, Any]] = {
    "no such model": {"init": "/nope"},
    "overlong sentence": {"segments": "sentences", "global_batch_tokens": 2},
    "row too long": {"segments": "rows", "global_batch_tokens": 2},
    "more parts than streams": {"bitwise": 5},
}


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_request_that_is_refused_changes_nothing(random_data, run, tmp_path, wrong, rebuild):
    before = tree(run)
    with pytest.raises(RequestError):
        stage.run(settings(random_data.folder, run, **WRONG[wrong]), random_data.manifest, rebuild)
    assert tree(run) == before
    with pytest.raises(RequestError):
        stage.run(settings(random_data.folder, tmp_path / "new", **WRONG[wrong]), random_data.manifest, rebuild)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("killed_in", ["validate", "update"])
def test_a_training_that_made_no_step_holds_nothing(random_data, run, tmp_path, monkeypatch, killed_in):
    """Also one that began from another model, whose weights are in the checkpoint of step 0."""

    def die(*arguments):
        raise Killed

    for init in ("", str(run / "model")):
        new = tmp_path / f"new{bool(init)}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Trainer, killed_in, die)
            stage.run(settings(random_data.folder, new, init=init, lr=100.0), random_data.manifest)
        assert (new / "train" / "settings.json").exists()
        stage.run(settings(random_data.folder, new, hidden=12), random_data.manifest)
        assert model_folder.read(new / "model").model.hidden == 12
        steps = [line["step"] for _, line in json_lines.read(new / "train" / "metrics.jsonl", MetricLine)]
        assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6]


def test_what_made_a_step_is_not_replaced_unasked(random_data, tmp_path, monkeypatch):
    """Without a checkpoint too: its metrics show it."""
    update = Trainer.update

    def die_at_2(trainer, stop):
        if trainer.state.step == 1:
            raise Killed
        return update(trainer, stop)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "update", die_at_2)
        stage.run(settings(random_data.folder, tmp_path), random_data.manifest)
    assert checkpoint.steps(tmp_path / "train" / "checkpoints") == []
    with pytest.raises(RequestError, match=r"model\.hidden: 8 -> 12"):
        stage.run(settings(random_data.folder, tmp_path, hidden=12), random_data.manifest)


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, count: int) -> None:
    """Makes the `count`-th call of a function from now on the end of the process."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **options):
        calls.append(0)
        if len(calls) == count:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


MOMENTS = [("update", 2), *(("rename", number) for number in range(1, 9))]
"""Before the second update, and before each renaming of a folder: two checkpoints, the exported model, and four in the exchange."""


@pytest.mark.parametrize(
    ("again", "moments"), [("the same command", MOMENTS), ("without --rebuild", MOMENTS[5::2]), ("other settings", MOMENTS[5::2])]
)
def test_a_rebuild_that_is_killed_leaves_the_finished_model_usable_and_is_resumed(
    random_data, run, tmp_path, monkeypatch, again, moments
):  # fmt: skip
    old, short = model_folder.read(run / "model").weights, {"max_steps": 2, "checkpoint_every": 1}
    stage.run(settings(random_data.folder, tmp_path / "undisturbed", hidden=12, **short), random_data.manifest)
    expected = model_folder.read(tmp_path / "undisturbed" / "model").weights
    outcomes = []
    for name, count in moments:
        folder = tmp_path / f"{name}{count}"
        shutil.copytree(run, folder)
        second, third = (settings(random_data.folder, folder, hidden=hidden, **short) for hidden in (12, 10))
        with monkeypatch.context() as patch:
            kill_at(patch, os if name == "rename" else Trainer, name, count)
            try:
                stage.run(second, random_data.manifest, rebuild=True)
            except Killed:
                outcomes.append("none")  # between the two renamings of the exchange, until anything is run
                if (folder / "model").exists():
                    outcomes[-1] = "old" if model_folder.load(folder / "model")[1].weights == old else "new"
            else:
                outcomes.append("complete")
        if again == "other settings":
            stage.run(third, random_data.manifest, rebuild=True)
            assert model_folder.load(folder / "model")[1].model.hidden == 10
        else:
            stage.run(second, random_data.manifest, rebuild=again == "the same command")
            assert model_folder.load(folder / "model")[1].weights == expected
            assert record.is_complete(folder, record.inputs_of(second, random_data.manifest))
        assert sorted(path.name for path in folder.iterdir()) == ["model", "train"]
    assert len(moments) < len(MOMENTS) or outcomes == ["old"] * 5 + ["none", "new", "new", "complete"]


def test_a_rebuild_that_fails_leaves_what_it_was_to_replace(random_data, run, monkeypatch):
    before = tree(run)
    monkeypatch.setattr(Trainer, "validate", lambda trainer: (_ for _ in ()).throw(PacklmError("fails")))
    with pytest.raises(PacklmError, match="fails"):
        stage.run(settings(random_data.folder, run, lr=0.1), random_data.manifest, rebuild=True)
    assert {name: digest for name, digest in tree(run).items() if not name.startswith("rebuild/")} == before
    monkeypatch.undo()
    updates: list[int] = []
    monkeypatch.setattr(Trainer, "update", lambda trainer, stop: updates.append(1))
    stage.run(settings(random_data.folder, run), random_data.manifest)
    assert not updates  # it is complete


def test_records_that_mlflow_has_not_yet_follow_the_files_of_a_rebuild(random_data, run, monkeypatch):
    recorded = config.Tracking(uri="http://127.0.0.1:9")
    rebuilt = settings(random_data.folder, run, hidden=12).model_copy(update={"tracking": recorded})
    monkeypatch.setattr("train.progress.progress.tracking.stage", lambda *arguments: nullcontext(Recorder()))
    tracking.begin(rebuilt, "train")
    names = {"follow": "rebuild/train/metrics.jsonl", "artifact": "rebuild/train/settings.json"}
    spool = Spool(run, "train")
    for do, name in names.items():
        spool.add(TrackingRecord(do=do, arguments={"path": str(run / name)}))
    stage.run(rebuilt, random_data.manifest, rebuild=True)
    spool.resume(0.0)
    assert [record.arguments.get("path") for record in spool.records[1:]] == [
        str(run / "train" / "metrics.jsonl"), str(run / "train" / "settings.json")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line"),
    [({"hidden": 12}, "model.hidden: 8 -> 12"), ({"optimizer": "muon"}, "train.optimizer: 'adamw' -> 'muon'"), ({}, "")],
)
def test_a_dry_run_describes_what_is_asked_and_names_what_stands_there(random_data, run, change, line):
    for damaged in checkpoint.steps(run / "train" / "checkpoints"):  # it reads none
        (checkpoint.path_of(run / "train" / "checkpoints", damaged) / "tensors.safetensors").write_bytes(b"?")
    before = tree(run)
    text = stage.describe(settings(random_data.folder, run, **change), random_data.manifest)
    assert text and "parameters" in text and (line in text) and ("holds another training" in text) == bool(line)
    assert tree(run) == before

"""Sweeps: a search space is checked before any work; trials are compared, stopped and continued; every trial is a run in MLflow."""

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from packlm import config as configuration
from packlm import tracking
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.config import Config
from packlm.dataset import Manifest
from pipeline import stages
from pipeline.sweep import command, space, trial
from tests.train.resume.test_continuation import settings

FAKE = """
import json, math, signal, sys, time, tomllib
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
config = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
lr, folder = config["train"]["lr"], Path(config["run"]["dir"]) / "train"
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
if lr > 0.5:
    print("error: the training diverged")
    sys.exit(1)
lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
loss = json.loads(lines[-1])["validation/loss"] if lines else math.inf
with (folder / "metrics.jsonl").open("a") as stream:
    for epoch in range(len(lines), 4):
        loss = 3 + abs(math.log10(lr) + 2) + 1 / (1 + epoch)
        print(json.dumps({"step": 10 * epoch, "validation/loss": loss}), file=stream, flush=True)
        time.sleep(SECONDS)
best = {"perplexity": math.exp(loss), "step": 30, "loss": loss, "tokens": 1}
summary = {"steps": 30, "skipped_steps": 0, "epochs": 1.0, "tokens": 30, "seconds": 0.1, "validation": {"best": best}}
(folder / "summary.json").write_text(json.dumps(summary))
"""
"""A training whose best learning rate is 0.01."""


@pytest.fixture
def base(random_data: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of sweeps with fake trainings."""
    monkeypatch.setattr(trial, "training_command", lambda config: ["-c", FAKE.replace("SECONDS", "0.01")])
    monkeypatch.setattr(stages, "run_all", lambda config, only: None)
    monkeypatch.setattr(command, "POLL_SECONDS", 0.02)
    return settings(random_data[0], tmp_path / "run")


def searched(tmp_path: Path, text: str) -> space.Space:
    (tmp_path / "space.toml").write_text(text)
    return space.read(tmp_path / "space.toml")


LR = "[train]\nlr = {low = 1e-4, high = 0.1, log = true}\n"


def study(base: Config) -> Any:
    optuna = command._optuna()
    return optuna.load_study(study_name=base.run.name, storage=f"sqlite:///{base.run.dir}/sweep/study.db")


def test_the_best_of_several_trials_becomes_a_recipe(base: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = LR + "[model]\nhidden = {low = 4, high = 8}\ncell = ['lstm', 'gru']\ndropout = [0.1, 0.2]\n"
    command.run(base, searched(tmp_path, text), 8, 2, pruning=False)
    trials = study(base).trials
    assert len(trials) == 8 and {one.state.name for one in trials} == {"COMPLETE"}
    for one in trials:
        assert one.value == pytest.approx(3 + abs(math.log10(one.params["train.lr"]) + 2) + 0.25)
        assert list(one.intermediate_values) == [1, 2, 3] and isinstance(one.params["model.hidden"], int)
    best, folder = min(trials, key=lambda one: one.value), base.run.dir / "sweep"
    recipe = configuration.load(folder / "best.toml")
    assert (recipe.train.lr, recipe.model.hidden) == (best.params["train.lr"], best.params["model.hidden"])
    assert (recipe.model.cell, recipe.run.dir) == (best.params["model.cell"], base.run.dir)
    lines = [line.split("\t") for line in (folder / "trials.tsv").read_text().splitlines()]
    assert lines[0][:3] == ["trial", "state", "perplexity"] and lines[1][0] == str(best.number)
    assert [float(line[2]) for line in lines[1:]] == sorted(float(line[2]) for line in lines[1:])
    told = capsys.readouterr().out
    assert "train.lr" in told and "explains" not in told  # of few trials it would be chance
    assert (folder / "sweep.svg").stat().st_size > 1000
    kept = [path.parts[-3] for path in folder.glob("trials/*/train/checkpoints")]
    assert kept == [f"{best.number:04d}"]
    command.run(base, searched(tmp_path, text), 10, 1, pruning=False)  # with more trials it goes on
    assert len(study(base).trials) == 10 and len({one.params["train.lr"] for one in study(base).trials}) == 10
    assert "a setting explains: train.lr " in capsys.readouterr().out


def test_a_trial_that_is_left_behind_is_stopped(base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "STARTUP_TRIALS", 1)
    monkeypatch.setattr(trial, "training_command", lambda config: ["-c", FAKE.replace("SECONDS", "0.2")])
    command.run(base, searched(tmp_path, LR), 5, 1, pruning=True)
    trials = study(base).trials
    states = [one.state.name for one in trials]
    assert states[0] == "COMPLETE" and "PRUNED" in states
    for one in trials[1:]:
        earlier = [other.intermediate_values[2] for other in trials[: one.number] if other.state.name == "COMPLETE"]
        if one.state.name == "PRUNED":
            assert one.intermediate_values[max(one.intermediate_values)] > min(earlier) and 3 not in one.intermediate_values


def test_a_stopped_sweep_continues_what_was_running(
    base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "packlm")
    monkeypatch.setattr(trial, "training_command", lambda config: ["-c", FAKE.replace("SECONDS", "0.4")])
    metrics = base.run.dir / "sweep" / "trials" / "0002" / "train" / "metrics.jsonl"

    def stop_within_a_trial() -> None:
        while not metrics.exists() or not metrics.read_bytes():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_within_a_trial, daemon=True)
    stopper.start()
    with pytest.raises(Stopped, match="continue by running the same command again"):
        command.run(base, searched(tmp_path, LR), 4, 2, pruning=False)
    stopper.join()
    before = study(base).trials
    running = [one.number for one in before if one.state.name == "RUNNING"]
    assert running and len(before) <= 4
    command.run(base, searched(tmp_path, LR), 4, 2, pruning=False)
    trials = study(base).trials
    assert [one.state.name for one in trials] == ["COMPLETE"] * 4
    assert all(trials[one.number].params == one.params for one in before)
    assert all(f"trial {number} continues" in caplog.text for number in running)
    for number in running:  # it did not start over
        steps = (base.run.dir / "sweep" / "trials" / f"{number:04d}" / "train" / "metrics.jsonl").read_text().splitlines()
        assert len(steps) == 4


def test_failures_are_counted_and_several_in_a_row_end_the_sweep(base: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PacklmError, match="5 trials in a row failed; the last one: error: the training diverged"):
        command.run(base, searched(tmp_path, "[train]\nlr = [0.6, 0.7, 0.8]\n"), 20, 1, pruning=False)
    assert [one.state.name for one in study(base).trials] == ["FAIL"] * 5
    assert "trial 0 failed (exit status 1)" in caplog.text and "log.txt" in caplog.text


def test_values_that_do_not_go_together_are_a_failed_trial(base: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = '[model]\nresidual = ["none", "add"]\nhidden = [[4, 5], [6, 6]]\nembedding = [5, 6]\n[train]\nlr = [0.1, 0.01]\n'
    command.run(base, searched(tmp_path, text), 6, 1, pruning=False)
    for one in study(base).trials:
        hidden, embedding = one.params["model.hidden"], one.params["model.embedding"]
        fits = (embedding == 6 and hidden == "[6, 6]") or (one.params["model.residual"] == "none" and (embedding, hidden) == (5, "[4, 5]"))
        assert one.state.name == ("COMPLETE" if fits else "FAIL")


def test_another_sweep_in_its_place_is_refused(base: Config, tmp_path: Path) -> None:
    command.run(base, searched(tmp_path, LR), 1, 1, pruning=False)
    with pytest.raises(RequestError, match=r"(?s)a sweep with other settings:.*train\.lr.*choose another --run\.name"):
        command.run(base, searched(tmp_path, LR.replace("0.1", "0.2")), 2, 1, pruning=False)
    other = base.model_copy(update={"train": base.train.model_copy(update={"epochs": 3})})
    with pytest.raises(RequestError, match=r"(?s)a sweep with other settings:.*epochs"):
        command.run(other, searched(tmp_path, LR), 2, 1, pruning=False)
    assert len(study(base).trials) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train", "not a TOML file"),
        (".".join(["a"] * 50_000) + " = 1", "not a TOML file: nested too deeply"),
        ("", "no setting to search"),
        ("lr = 3", "lr: a section with settings is expected"),
        ("[train]\nlrr = [1, 2]", r"train\.lrr: there is no such setting; did you mean train\.lr"),
        ("[corpus]\nlines = [1, 2]", r"corpus\.lines: a sweep searches settings of model and train"),
        ("[train]\nlr = 3", r"train\.lr: expected a list of several values"),
        ("[train]\nlr = [3]", r"train\.lr: expected a list of several values"),
        ("[train]\nlr = {low = 1, hi = 2}", r"train\.lr: .*hi"),
        ("[train]\nlr = {low = 2, high = 1}", r"train\.lr: .*low = 2 must be below high = 1"),
        ("[train]\nlr = {low = 0, high = 1, log = true}", r"train\.lr: .*log = true needs a low above 0"),
        ("[train]\nlr = {low = -1.0, high = 1}", r"train\.lr: Input should be greater than 0"),
        ("[model]\ncell = ['lstm', 'transformer']", r"model\.cell: Input should be"),
        ("[model]\nlayers = {low = 1, high = 2.5}", r"model\.layers: .*integer"),
    ],
)
def test_a_wrong_space_is_refused_before_any_work(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=rf"space\.toml.*{message}"):
        searched(tmp_path, text)


def test_trainings_at_the_same_time_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert trial.pin(1, 2, 2, []) == {"OMP_NUM_THREADS": "2"}
    assert trial.pin(1, 2, 2, ["0", "3", "5", "6"])["CUDA_VISIBLE_DEVICES"] == "5,6"


@pytest.mark.filterwarnings("ignore:::mlflow")
def test_every_trial_is_a_run_below_that_of_the_sweep(base: Config, tmp_path: Path, store_folder: Path) -> None:
    from mlflow import MlflowClient

    values = base.model_dump(mode="json")
    store = {"uri": f"sqlite:///{store_folder}/mlflow.db", "timeout_seconds": 60.0, "experiment": "sweeps"}
    tracked = configuration.resolve(values | {"tracking": store, "run": values["run"] | {"name": "search"}})
    command.run(tracked, searched(tmp_path, LR), 1, 1, pruning=True)
    folder = tracked.run.dir / "sweep" / "trials" / "0000"
    with tracking.stage(configuration.load(folder / "config.toml"), "train"):  # what a training does
        pass
    client = MlflowClient(store["uri"])
    runs = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])}
    parent, one = runs["search"], runs["search-0000"]
    assert "mlflow.parentRunId" not in parent.data.tags and one.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert runs["training: search-0000"].data.tags["mlflow.parentRunId"] == one.info.run_id
    assert runs["search: search"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    best = math.exp(study(tracked).best_value)
    assert parent.data.metrics["validation/best_perplexity"] == pytest.approx(best)
    assert runs["search: search"].data.metrics["sweep/best_perplexity"] == pytest.approx(best)
    assert {file.path for file in client.list_artifacts(runs["search: search"].info.run_id)} == {"best.toml", "sweep.svg", "trials.json"}

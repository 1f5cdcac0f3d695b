"""A stage that is killed around its end and run again has in MLflow what an undisturbed one has, and no run stays RUNNING."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

ROOT = Path(__file__).parents[2]
CONFIG = """
[run]
name = "tiny"
[corpus]
train = "train.txt"
validation = "validation.txt"
[tokenizer]
vocab_size = 280
[dataset]
workers = 1
[model]
hidden = 8
layers = 1
[train]
max_steps = 6
validate_every = 3
log_every = 1
samples = 1
processes = 1
device = "cpu"
[evaluate]
split = "validation"
[generate]
prompts = ["the cat"]
max_tokens = 5
[tracking]
uri = "sqlite:///store.db"
timeout_seconds = 60
"""
STAGES = {"preprocess": ["preprocess", "build"], "train": ["train"], "evaluate": ["serve", "evaluate"], "generate": ["serve", "generate"]}
WITHIN = "from packlm import tracking as owner; name = '_close'"
"""Killed when everything is recorded, and not confirmed."""
KILLS = {
    "preprocess": [WITHIN, "from preprocess import record as owner; name = 'record'"],
    "train": [WITHIN, "from train import record as owner; name = 'end'"],
    "evaluate": [WITHIN, "from packlm.base import completion as owner; name = 'write'"],
    "generate": [WITHIN, "from packlm import tracking as owner; name = '_record_note'"],
}
"""For each stage: the functions at whose call it is killed, before or after the record is sent."""
RUN = "import importlib, os, sys\n{kill}\nsys.argv[1:] = sys.argv[2:]\nimportlib.import_module({module!r} + '.cli').main()"
KILL = "\n{place}\nsetattr(owner, name, lambda *arguments, **options: os.kill(os.getpid(), 9))"
CHANGING = ("seconds", "memory_mb", "tokens_per_second", "data_wait")
"""Ends of the names of metrics that differ from run to run."""


def run_stage(folder: Path, stage: str, place: str = "") -> str:
    """Runs a stage, or kills it at `place`; returns its log."""
    module, *verb = STAGES[stage]
    program = RUN.format(kill=KILL.format(place=place) if place else "", module=module)
    command = [sys.executable, "-c", program, module, *verb, "--config", "config.toml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PACKLM_"))}
    result = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == (-signal.SIGKILL if place else 0), (stage, place, result.stderr)
    return result.stderr


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    for split, count in (("train", 60), ("validation", 10)):
        words = random.Random(split).choices(["the", "a", "cat", "dog", "tree", "sees", "eats"], k=count * 5)
        (folder / f"{split}.txt").write_text("".join(" ".join(words[5 * line : 5 * line + 5]) + ".\n" for line in range(count)))
    return folder


def content(folder: Path) -> dict[str, Any]:
    """All that MLflow has, by stage, without ids and times."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/store.db")
    experiment = client.get_experiment_by_name("packlm").experiment_id
    runs = client.search_runs([experiment])
    ids = json.loads((folder / "runs" / "tiny" / "tracking.json").read_text())
    names = {ids["parent"]: "pipeline"} | {run: stage for stage, run in ids["stages"].items()}
    assert {run.info.run_id for run in runs} == names.keys(), "runs that nobody knows"

    def artifacts(run: str, path: str = "") -> list[str]:
        items = client.list_artifacts(run, path)
        return sorted(name for item in items for name in (artifacts(run, item.path) if item.is_dir else [item.path]))

    return {
        names[run.info.run_id]: {
            "status": run.info.status,
            "params": run.data.params,
            "metrics": {name: value for name, value in run.data.metrics.items() if not name.endswith(CHANGING)},
            "points": {name: len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics if "loss" in name},
            "artifacts": artifacts(run.info.run_id),
            "inputs": sorted(used.dataset.digest for used in run.inputs.dataset_inputs),
        }
        for run in runs
    } | {"versions": [version.version for version in client.search_model_versions("name = 'tiny'")]}


@pytest.mark.long
def test_a_killed_stage_that_is_run_again_is_recorded_like_an_undisturbed_one(tmp_path: Path) -> None:
    seed = int(os.environ.get("PACKLM_SEED", time.time_ns() % 10**6))
    print(f"PACKLM_SEED={seed}")
    undisturbed, killed = prepare(tmp_path / "undisturbed"), prepare(tmp_path / "killed")
    rng = random.Random(seed)
    victims = rng.sample(sorted(STAGES), 2)
    for stage in STAGES:
        run_stage(undisturbed, stage)
        if stage in victims:
            run_stage(killed, stage, rng.choice(KILLS[stage]))
        run_stage(killed, stage)
    expected, found = content(undisturbed), content(killed)
    assert {name: run["status"] for name, run in found.items() if name != "versions"} == dict.fromkeys(["pipeline", *STAGES], "FINISHED")
    for name, run in expected.items():
        assert found[name] == run, name
    assert expected["versions"] == [1]
    (killed / "store.db").rename(killed / "elsewhere.db")
    log = run_stage(killed, "evaluate")
    assert "up to date" in log and "tracking" not in log, "an up-to-date stage asks the store for nothing"
    assert not (killed / "store.db").exists()

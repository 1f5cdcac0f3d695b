"""Configurations and metrics files for the tests of tracking and of the pipeline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import config as configuration
from packlm.config import Config


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one SQLite store for all tests: creating one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def make_config(tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Makes a configuration; `tmp_path` is the current folder, and the run's folder is below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)

    def make(uri: str = f"sqlite:///{store_folder}/mlflow.db", **sections: dict[str, Any]) -> Config:
        return configuration.resolve({"run": {"name": "tiny"}, "tracking": {"uri": uri}} | sections)

    return make


@pytest.fixture
def write_metrics() -> Callable[..., Path]:
    """Appends lines for the given steps to the training's `metrics.jsonl`; 100 tokens a step, loss 10 - step / 10."""

    def write(config: Config, steps: range, **more: float) -> Path:
        path = config.run.dir / "train" / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            for step in steps:
                record = {"step": step, "tokens": 100 * step, "time": 1e9 + step, "train/loss": 10 - step / 10, "train/lr": 0.5}
                stream.write(json.dumps(record | more) + "\n")
        return path

    return write

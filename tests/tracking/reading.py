"""What tests of tracking read: the store of a configuration, the ids of its runs, and the history of a metric."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packlm.config import Config
from packlm.tracking import LoggedModel

MakeConfig = Callable[..., Config]
WriteMetrics = Callable[..., Path]
NO_MODEL = LoggedModel(Path(), Path(), [], [], "tiny", "", {}, {}, {}, {})


def store(config: Config) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(config.tracking.uri)


def ids(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((config.run.dir / "tracking.json").read_text())
    return values


def history(config: Config, run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store(config).get_metric_history(run, key)]

"""What MLflow has of a run, read back through its client: settings, final numbers and reports."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packlm import dataset

RUN_TAG = "packlm.run"
"""The tag of a parent run that holds `run.name`, by which a run is found whatever it was renamed to."""


@dataclass(frozen=True)
class Record:
    """A run of a pipeline, its stages together."""

    name: str
    params: dict[str, str]
    """All settings that are set, as `section.key`, as they were last."""
    metrics: dict[str, float]
    """The last value of each number, of the parent and of its training."""
    reports: list[dict[str, Any]]
    """Those of the stage `evaluate`."""


def find(client: Any, experiment: str, wanted: str) -> Record | None:
    """The run with an id or a name (`run.name`, or what MLflow shows; the latest of several); that of a stage is its pipeline's."""
    place = client.get_experiment_by_name(experiment)
    if place is None:
        return None
    found = client.search_runs([place.experiment_id], _named(wanted), order_by=["attributes.start_time DESC"])
    by_tag = client.search_runs([place.experiment_id], f"tags.`{RUN_TAG}` = {_quoted(wanted)}", order_by=["attributes.start_time DESC"])
    if not (found or by_tag):
        return None
    run = (by_tag or found)[0]
    if parent := run.data.tags.get("mlflow.parentRunId"):
        run = client.get_run(parent)
    stages = client.search_runs([place.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    changed = {key.removeprefix("changed."): value for key, value in run.data.tags.items() if key.startswith("changed.")}
    metrics, reports = dict(run.data.metrics), []
    for stage in stages:
        metrics = stage.data.metrics | metrics
        reports += _reports(client, stage.info.run_id)
    name = run.data.tags.get(RUN_TAG, run.info.run_name)
    return Record(name, run.data.params | changed, metrics, reports)


def _named(wanted: str) -> str:
    if re.fullmatch("[0-9a-f]{32}", wanted):
        return f"attributes.run_id = '{wanted}'"
    return f"attributes.run_name = {_quoted(wanted)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "") + "'"


def _reports(client: Any, run: str) -> list[dict[str, Any]]:
    stored = [item.path for item in client.list_artifacts(run, "evaluate")]
    paths = [f"evaluate/{split}.json" for split in dataset.SPLITS if f"evaluate/{split}.json" in stored]
    with tempfile.TemporaryDirectory() as folder:
        return [json.loads(Path(client.download_artifacts(run, path, folder)).read_text(encoding="utf-8")) for path in paths]

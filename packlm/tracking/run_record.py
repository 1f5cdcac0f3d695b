"""Reads a run back from MLflow: settings, final metrics and reports."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packlm import dataset
from packlm.base import json_models
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Tracking
from packlm.tracking import store
from packlm.tracking.run_files import EvaluationReport

RUN_TAG = "packlm.run"
"""The tag of a parent run that holds `run.name`, by which it is found even if somebody renamed it."""
PARENT_TAG = "mlflow.parentRunId"
"""MLflow's tag of a stage's run that holds the id of the pipeline's."""


@dataclass(frozen=True)
class RunRecord:
    """A run of a pipeline, all its stages together."""

    name: str
    params: dict[str, str]
    """All settings that are set, as `section.key`, with their latest values."""
    metrics: dict[str, float]
    """The last value of each metric, of the parent and of its stages."""
    reports: list[EvaluationReport]


def read_run(name: str, tracking: Tracking) -> RunRecord:
    """What MLflow has of a run: the latest with `name` as its id, `run.name` or MLflow name; of a stage's run, the pipeline it belongs to.

    Raises:
        RequestError: there is no such run.
        PacklmError: the store does not answer, or a report is damaged.
    """
    subject = f"{name} (not a run folder)"
    if not tracking.uri:
        raise RequestError(f"{subject}: tracking.uri is empty, so there is no MLflow to look in")
    where = store.existing(tracking, subject)
    store.mlflow()
    from mlflow import MlflowClient

    try:
        record = _find(MlflowClient(tracking.uri, tracking.uri), tracking.experiment, name)
    except PacklmError:
        raise
    except Exception as error:
        raise PacklmError(f"{subject}: {where} does not answer: {store.describe(error, tracking.uri)}") from None
    if record is None:
        raise RequestError(f"{subject}: no run of this id or name in {where}, experiment {tracking.experiment}")
    return record


def _find(client: Any, experiment_name: str, name: str) -> RunRecord | None:
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        return None
    ids, latest = [experiment.experiment_id], ["attributes.start_time DESC"]
    quoted = "'" + name.replace("'", "") + "'"
    key = "run_id" if re.fullmatch("[0-9a-f]{32}", name) else "run_name"
    runs = client.search_runs(ids, f"tags.`{RUN_TAG}` = {quoted}", order_by=latest)
    runs = runs or client.search_runs(ids, f"attributes.{key} = {quoted}", order_by=latest)
    if not runs:
        return None
    run = runs[0]
    if parent := run.data.tags.get(PARENT_TAG):
        run = client.get_run(parent)
    changed = {key.removeprefix("changed."): value for key, value in run.data.tags.items() if key.startswith("changed.")}
    metrics, reports = dict(run.data.metrics), []
    for stage in client.search_runs(ids, f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"):
        metrics = stage.data.metrics | metrics
        reports += _reports(client, stage.info.run_id)
    return RunRecord(run.data.tags.get(RUN_TAG, run.info.run_name), run.data.params | changed, metrics, reports)


def _reports(client: Any, run: str) -> list[EvaluationReport]:
    stored = [item.path for item in client.list_artifacts(run, "evaluate")]
    paths = [f"evaluate/{split}.json" for split in dataset.SPLITS if f"evaluate/{split}.json" in stored]
    with tempfile.TemporaryDirectory() as folder:
        return [json_models.read(Path(client.download_artifacts(run, path, folder)), EvaluationReport) for path in paths]

"""The runs of a pipeline and of one of its stages: created or joined in a store, and written to."""

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from packlm.base import files, json_models
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.tracking import run_note, store
from packlm.tracking.metrics_follower import Point
from packlm.tracking.run_record import RUN_TAG

log = logging.getLogger("packlm")

NOTE, NOTE_TAG = "mlflow.note.content", "mlflow.packlm.note"
"""The tag that MLflow shows as a run's description, and the one with the digest of the last description that we wrote (the UI hides tags
whose name begins with `mlflow.`)."""
LOCK_SECONDS = 60.0
"""How long a stage waits for another one that is creating the store or the runs."""
LOGGED_TABLES = 60
"""Tables that MLflow's table view lists, the latest ones (its tag holds 8,000 characters)."""


class RunIds(BaseModel):
    """`run.dir/tracking.json`: the run of the pipeline and those of its stages."""

    parent: str | None = None
    stages: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> "RunIds":
        """The ids of a run's folder; none where there is no file or a damaged one, which gets new runs."""
        try:
            return json_models.read(folder / "tracking.json", cls)
        except PacklmError:
            return cls()

    def write(self, folder: Path) -> None:
        files.write_json(folder / "tracking.json", self.model_dump())


class Runs:
    """An open store and our two runs in it (a `Session` of the outbox); every method raises what mlflow raises."""

    def __init__(self, client: Any, uri: str, parent: str, child: str, status_before: str):
        self.client, self.uri, self.parent, self.child, self.status_before = client, uri, parent, child, status_before
        data = {run: client.get_run(run).data for run in (parent, child)}
        self.experiment = client.get_run(child).info.experiment_id
        self._params: dict[str, dict[str, str]] = {run: dict(data[run].params) for run in data}
        self._metrics: dict[str, dict[str, float]] = {run: dict(data[run].metrics) for run in data}
        self._tables = json.loads(data[child].tags.get("mlflow.loggedArtifacts", "[]"))
        self._last_steps = {key: max(point.step for point in client.get_metric_history(child, key)) for key in data[child].metrics}

    def answers(self) -> bool:
        try:
            self.client.get_experiment(self.experiment)
        except Exception:
            return False
        return True

    def send(self, points: list[Point]) -> None:
        """Sends the points beyond the last step of their metric: a restarted stage repeats the others."""
        last_steps, new = dict(self._last_steps), []
        for point in points:
            if point.step > last_steps.get(point.key, -1):
                last_steps[point.key] = point.step
                new.append(point)
        self._log_points(self.child, new)
        self._last_steps = last_steps

    def metrics(self, run: str, points: list[Point]) -> None:
        """Sends points, except those that equal the last value of their metric."""
        new = [point for point in points if self._metrics[run].get(point.key) != point.value]
        self._log_points(run, new)
        self._metrics[run] |= {point.key: point.value for point in new}

    def params(self, run: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        known = self._params[run]
        new = [(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(new), 100):  # MLflow's limit
            self.client.log_batch(run, params=[Param(key, value) for key, value in new[start : start + 100]])
            known |= new[start : start + 100]
        changed = [RunTag(f"changed.{key}", value) for key, value in values.items() if known[key] != value]
        if changed:
            self.client.log_batch(run, tags=changed)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name=name, digest=digest, source_type="local", source=json.dumps({"uri": source}))
        for run in (self.child, self.parent):  # lists of runs show the parent's
            self.client.log_inputs(run, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def content(self, name: str, content: bytes) -> None:
        """Stores `content` as the artifact `name`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            self.client.log_artifact(self.child, str(path), str(Path(name).parent) if Path(name).parent != Path() else None)

    def table(self, name: str, text: str) -> None:
        """Stores a table as `MlflowClient.log_table` does, which would append to one of the same name."""
        self.content(name, text.encode())
        entry = {"path": name, "type": "table"}
        if entry not in self._tables:
            tables = [*self._tables, entry][-LOGGED_TABLES:]
            self.client.set_tag(self.child, "mlflow.loggedArtifacts", json.dumps(tables))
            self._tables = tables

    def artifact(self, path: Path, folder: str) -> None:
        send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        send(self.child, str(path), folder or None)

    def note(self, text: str) -> None:
        """Makes `text` the parent's description, unless somebody else has edited it."""
        tags = self.client.get_run(self.parent).data.tags
        if tags.get(NOTE) and files.digest(tags[NOTE]) != tags.get(NOTE_TAG):
            return
        self.client.set_tag(self.parent, NOTE_TAG, files.digest(text))
        self.client.set_tag(self.parent, NOTE, text)

    def end(self, status: str) -> None:
        for run in (self.child, self.parent):
            self.client.set_terminated(run, status)

    def _log_points(self, run: str, points: list[Point]) -> None:
        from mlflow.entities import Metric

        if points:
            self.client.log_batch(run, [Metric(point.key, point.value, int(point.time * 1000), point.step) for point in points])


def connect(config: Config, name: str, started: float) -> Runs:
    """Opens the store, and joins the runs of `tracking.json` or creates them, with `started` (Unix seconds) as their start time."""
    store.mlflow()
    from mlflow import MlflowClient
    from mlflow.tracking.context.registry import resolve_tags

    uri, folder = config.tracking.uri, config.run.dir
    with ExitStack() as locks:
        if (database := store.database(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_waiting_lock(database.with_name(database.name + ".lock")))
        locks.enter_context(_waiting_lock(folder / "tracking.lock"))
        client = MlflowClient(uri, uri)
        experiment = _experiment(client, config.tracking.experiment, database)
        ids = RunIds.read(folder)
        tags, start = resolve_tags(), int(started * 1000)  # user, program, commit
        parent = _active_run(client, ids.parent)
        if parent is None:
            parent = client.create_run(experiment, start, tags | {RUN_TAG: config.run.name}, run_note.run_name(config))
            ids = RunIds(parent=parent.info.run_id)
            ids.write(folder)
        child = _active_run(client, ids.stages.get(name))
        if child is None:
            tags |= {"mlflow.parentRunId": parent.info.run_id}
            child = client.create_run(experiment, start, tags, f"{name} {config.run.name}")
            ids.stages[name] = child.info.run_id
            ids.write(folder)
    for run in (parent, child):
        client.update_run(run.info.run_id, status="RUNNING")
    status_before = child.info.status if child.info.status != "RUNNING" else "FINISHED"
    return Runs(client, uri, parent.info.run_id, child.info.run_id, status_before)


def forget(folder: Path, stage: str) -> None:
    """Drops a stage's run from a run's `tracking.json`: the stage gets a new one."""
    ids = RunIds.read(folder)
    if ids.stages.pop(stage, None):
        try:
            ids.write(folder)
        except PacklmError as error:  # then the stage resumes its old run
            log.warning("tracking: %s", error)


def _experiment(client: Any, name: str, database: Path | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    artifacts = (database.parent / "mlartifacts" / quote(name, safe="")).absolute().as_uri() if database else None
    # The tag keeps the UI from asking, every time it is opened, what kind of experiment this is.
    return str(client.create_experiment(name, artifact_location=artifacts, tags={"mlflow.experimentKind": "custom_model_development"}))


def _active_run(client: Any, run_id: str | None) -> Any:
    """The run, or None if this store does not have it or has it among its deleted runs."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if store.is_absent(error):
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


@contextmanager
def _waiting_lock(path: Path) -> Iterator[None]:
    """Takes the lock file `path`, waiting for its holder."""
    until = time.monotonic() + LOCK_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(files.lock(path))
                break
            except PacklmError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield

"""The runs of a pipeline and of one of its stages: created or joined in a store, and written to."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter

from packlm.base import files, json_models, json_text
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError
from packlm.tracking import metric_names, models, saved_view, sqlite_file, store
from packlm.tracking.metrics_follower import Point
from packlm.tracking.models import LoggedModel
from packlm.tracking.run_record import PARENT_TAG, RUN_TAG

log = logging.getLogger("packlm")

NOTE, NOTE_TAG = "mlflow.note.content", "mlflow.packlm.note"
"""The tag that MLflow shows as a run's description, and the one with the digest of the last description that we wrote (the UI hides tags
whose name begins with `mlflow.`)."""
KEY_TAG = "mlflow.packlm.key"
"""The tag by which a run is found again whose creator was killed before it could write down the run's id."""
LOGGED_TABLES = 60
"""Tables that MLflow's table view lists, the latest ones (its tag holds 8,000 characters)."""
TITLES = {"preprocess": "preprocessing", "sweep": "search", "train": "training", "evaluate": "evaluation", "generate": "generation"}
"""Stage -> the beginning of the name of its run, which MLflow's narrow column of names still shows; the pipeline's name follows."""


Which = Literal["pipeline", "stage"]
"""The parent run or the child run."""


class Target(BaseModel):
    """Where the records of a stage go."""

    uri: str
    experiment: str
    folder: Path
    """The run's folder, with `tracking.json`."""
    run: str
    """`run.name`, and the name of the pipeline's run."""
    stage: str
    started: float
    """When the stage began, in Unix seconds."""
    spool: Path | None
    """The records to send; without them only requests are answered."""


class RunIds(BaseModel):
    """`run.dir/tracking.json`: the run of the pipeline and those of its stages."""

    parent: str | None = None
    stages: dict[str, str] = {}
    creating: dict[str, str] = {}
    """The keys of runs (of a stage, or `""`: of the pipeline) that are being created, or were when the process was killed."""
    above: str | None = None
    """The run that the pipeline's is a child of, as a trial's is of its sweep's."""
    replaced: list[str] = []
    """Runs of stages that start over: to be ended, if they have not ended by themselves."""

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
    """An open store and our two runs in it (a `Session` of the outbox); every method raises what mlflow raises.

    The methods take JSON values: records and requests come as text (`packlm.tracking.spool`). Each may be repeated without doubling
    anything, since a record is sent again when it is not certain to have arrived.
    """

    def __init__(self, client: Any, uri: str, parent: str, child: str, status_before: str):
        self.client, self.uri, self.parent, self.child, self.status_before = client, uri, parent, child, status_before
        found = {run: client.get_run(run) for run in (parent, child)}
        data = {run: found[run].data for run in found}
        self.experiment = found[child].info.experiment_id
        self._params: dict[str, dict[str, str]] = {run: dict(data[run].params) for run in data}
        self._metrics: dict[str, dict[str, float]] = {run: dict(data[run].metrics) for run in data}
        self._tables = json_text.loads(data[child].tags.get("mlflow.loggedArtifacts", "[]"))
        self._last_steps: dict[str, dict[str, int]] = {parent: {}, child: {}}
        """Run -> metric -> step of its last point, as far as points were sent."""

    def refused(self, error: Exception) -> bool:
        return store.is_refusal(error) and self._answers()

    def _answers(self) -> bool:
        try:
            self.client.get_experiment(self.experiment)
        except Exception:
            return False
        return True

    def _run(self, which: Which) -> str:
        return {"pipeline": self.parent, "stage": self.child}[which]

    def send(self, points: list[Point]) -> None:
        """Sends points of a metrics file to the stage's run, and those of validations to the pipeline's, too: there runs are compared."""
        self._send_new(self.child, points)
        self._send_new(self.parent, [point for point in points if metric_names.is_validation(point.key)])

    def _send_new(self, run: str, points: list[Point]) -> None:
        """Sends the points beyond the last step of their metric: a restarted stage repeats the others."""
        last_steps, new = dict(self._last_steps[run]), []
        for point in points:
            if point.key not in last_steps:
                history = self.client.get_metric_history(run, point.key) if point.key in self._metrics[run] else []
                last_steps[point.key] = max((earlier.step for earlier in history), default=-1)
            if point.step > last_steps[point.key]:
                last_steps[point.key] = point.step
                new.append(point)
        self._log_points(run, new)
        self._last_steps[run] = last_steps

    def metrics(self, run: Which, points: Sequence[Sequence[Any]]) -> None:
        """Sends points (each the values of a `Point`), except those that equal the last value of their metric."""
        run_id = self._run(run)
        new = [point for point in (Point(*values) for values in points) if self._metrics[run_id].get(point.key) != point.value]
        self._log_points(run_id, new)
        self._metrics[run_id] |= {point.key: point.value for point in new}

    def params(self, run: Which, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        run_id = self._run(run)
        known = self._params[run_id]
        new = [(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(new), 100):  # MLflow's limit
            self.client.log_batch(run_id, params=[Param(key, value) for key, value in new[start : start + 100]])
            known |= new[start : start + 100]
        changed = [RunTag(f"changed.{key}", value) for key, value in values.items() if known[key] != value]
        if changed:
            self.client.log_batch(run_id, tags=changed)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name=name, digest=digest, source_type="local", source=json_text.dumps({"uri": source}))
        for run in (self.child, self.parent):  # lists of runs show the parent's
            self.client.log_inputs(run, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def content(self, name: str, file: str) -> None:
        """Stores the content of `file` as the artifact `name`, which has the same last part."""
        self.client.log_artifact(self.child, file, str(Path(name).parent) if Path(name).parent != Path() else None)

    def table(self, name: str, file: str) -> None:
        """Stores a table as `MlflowClient.log_table` does, which would append to one of the same name."""
        self.content(name, file)
        entry = {"path": name, "type": "table"}
        if entry not in self._tables:
            tables = [*self._tables, entry][-LOGGED_TABLES:]
            self.client.set_tag(self.child, "mlflow.loggedArtifacts", json_text.dumps(tables))
            self._tables = tables

    def artifact(self, path: str, folder: str) -> None:
        send = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        send(self.child, path, folder or None)

    def note(self, text: str) -> None:
        """Makes `text` the parent's description, unless somebody else has edited it."""
        tags = self.client.get_run(self.parent).data.tags
        if tags.get(NOTE) and files.digest(tags[NOTE]) != tags.get(NOTE_TAG):
            return
        self.client.set_tag(self.parent, NOTE_TAG, files.digest(text))
        self.client.set_tag(self.parent, NOTE, text)

    def describe_version(self, name: str, version: str, text: str) -> None:
        self.client.update_model_version(name, version, text)

    def log_model(self, model: Mapping[str, Any]) -> str:
        logged = TypeAdapter(LoggedModel).validate_python(model)
        return models.log_model(self.client, self.uri, self.experiment, self.child, self.parent, logged)

    def champion(self, name: str) -> str:
        return models.champion(self.client, name)

    def set_champion(self, name: str, version: str) -> bool:
        return models.set_champion(self.client, name, version)

    def end(self, status: str, time: float) -> None:
        """Ends both runs as of `time` (Unix seconds); with an empty `status` as they had ended before."""
        for run in (self.child, self.parent):
            self.client.set_terminated(run, status or self.status_before, int(time * 1000))

    def _log_points(self, run: str, points: list[Point]) -> None:
        from mlflow.entities import Metric

        if points:
            self.client.log_batch(run, [Metric(point.key, point.value, int(point.time * 1000), point.step) for point in points])


def connect(target: Target, preparing: Callable[[bool], None] = lambda preparing: None) -> Runs:
    """Opens the store, and joins the runs of `tracking.json` or creates them.

    Args:
        preparing: is told when the creation of an SQLite file begins and ends.
    """
    store.mlflow()
    from mlflow import MlflowClient
    from mlflow.tracking.context.registry import resolve_tags

    database = store.database(target.uri)
    if database is not None:
        sqlite_file.prepare(database, preparing)
    with sqlite_file.waiting_lock(target.folder / "tracking.lock"):
        client = MlflowClient(target.uri, target.uri)
        experiment = _experiment(client, target.experiment, database)
        ids = RunIds.read(target.folder)
        tags = {
            key: without_credentials(str(value)) for key, value in resolve_tags().items()
        }  # user, program, commit, git's remote address
        parent = _active_run(client, ids.parent)
        if parent is None:
            above = {PARENT_TAG: ids.above} if ids.above else {}
            parent = _create(client, experiment, target, ids, "", tags | {RUN_TAG: target.run} | above, target.run)
            ids.parent = parent.info.run_id
            ids.stages = {stage: run for stage, run in ids.stages.items() if _active_run(client, run)}
            for run in ids.stages.values():
                client.set_tag(run, PARENT_TAG, ids.parent)
            ids.write(target.folder)
        child = _active_run(client, ids.stages.get(target.stage))
        if child is None:
            tags |= {PARENT_TAG: parent.info.run_id}
            name = f"{TITLES.get(target.stage, target.stage)}: {target.run}"
            child = _create(client, experiment, target, ids, target.stage, tags, name)
            ids.stages[target.stage] = child.info.run_id
            ids.write(target.folder)
        for replaced in [_active_run(client, run) for run in ids.replaced]:
            if replaced is not None and replaced.info.status == "RUNNING":
                client.set_terminated(replaced.info.run_id, "KILLED")
        if ids.replaced:
            ids.replaced.clear()
            ids.write(target.folder)
    for run in (parent, child):
        client.update_run(run.info.run_id, status="RUNNING")
    status_before = child.info.status if child.info.status != "RUNNING" else "FINISHED"
    return Runs(client, target.uri, parent.info.run_id, child.info.run_id, status_before)


def forget(folder: Path, stage: str) -> None:
    """Replaces a stage's run in `tracking.json`: the stage gets a new one, and the old one is ended when the store is open.

    A training that starts over gets a new parent, too, since the old one has its curves; the dataset's run moves there.
    """
    ids = RunIds.read(folder)
    stages = [name for name in ids.stages if name != "preprocess"] if stage == "train" else [stage]
    replaced = [ids.stages.pop(name) for name in stages if name in ids.stages]
    for name in stages:
        ids.creating.pop(name, None)
    if stage == "train" and replaced and ids.parent:
        replaced.append(ids.parent)
        ids.parent = None
    if replaced:
        ids.replaced += replaced
        try:
            ids.write(folder)
        except PacklmError as error:  # then the stage resumes its old run
            log.warning("tracking: %s", error)


def _experiment(client: Any, name: str, database: Path | None) -> str:
    """The id of the experiment, which is created if there is none."""
    if (experiment := client.get_experiment_by_name(name)) is None:
        artifacts = (database.parent / "mlartifacts" / quote(name, safe="")).absolute().as_uri() if database else None
        # Without a kind the UI asks for it every time it is opened.
        tags = {"mlflow.experimentKind": "custom_model_development"} | saved_view.tags()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=tags))
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":  # by another process, just now
                raise
        experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def _create(client: Any, experiment: str, target: Target, ids: RunIds, stage: str, tags: Mapping[str, str], name: str) -> Any:
    """Creates a run (of a stage, or the pipeline's: `""`), or finds it if it was created by a process that was killed.

    The caller writes `ids` with the run's id in it.
    """
    key = ids.creating.get(stage)
    if key is None:
        key = ids.creating[stage] = uuid.uuid4().hex
        ids.write(target.folder)
        runs = []
    else:
        runs = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'")
    run = runs[0] if runs else client.create_run(experiment, int(target.started * 1000), dict(tags) | {KEY_TAG: key}, name)
    del ids.creating[stage]
    return run


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

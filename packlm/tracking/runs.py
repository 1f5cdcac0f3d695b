"""The runs of a pipeline and of one of its stages: made or joined in a store, and sent to."""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.tracking import registry, run_note, run_record, store
from packlm.tracking.metrics_reader import Point

log = logging.getLogger("packlm")

NOTE, NOTE_TAG = "mlflow.note.content", "mlflow.packlm.note"
"""The tag that MLflow shows as a run's description, and the one that holds the digest of what we wrote there last (as its name begins with
`mlflow.`, no page shows it)."""
LOCK_SECONDS = 60.0
"""How long a stage waits for another one that is creating the store or the runs."""
LOGGED_TABLES = 60
"""Most tables that MLflow's table view is told of, the latest ones (its tag holds 8,000 characters)."""


class Runs:
    """The store, opened, and our two runs in it (`Session` of the courier); every method raises what mlflow raises."""

    def __init__(self, client: Any, uri: str, parent: str, child: str, status_before: str):
        self.client, self.uri, self.parent, self.child, self.status_before = client, uri, parent, child, status_before
        data = {run: client.get_run(run).data for run in (parent, child)}
        self.experiment = client.get_run(child).info.experiment_id
        self._params: dict[str, dict[str, str]] = {run: dict(data[run].params) for run in data}
        self._numbers: dict[str, dict[str, float]] = {run: dict(data[run].metrics) for run in data}
        self._tables = json.loads(data[child].tags.get("mlflow.loggedArtifacts", "[]"))
        self._highest_steps = {key: max(point.step for point in client.get_metric_history(child, key)) for key in data[child].metrics}

    def answers(self) -> bool:
        try:
            self.client.get_experiment(self.experiment)
        except Exception:
            return False
        return True

    def send(self, points: list[Point]) -> None:
        """Sends points that lie beyond the highest step of their metric: what a restart repeats is there already."""
        highest, new = dict(self._highest_steps), []
        for point in points:
            if point.step > highest.get(point.key, -1):
                highest[point.key] = point.step
                new.append(point)
        self._log_points(self.child, new)
        self._highest_steps = highest

    def numbers(self, run: str, points: list[Point]) -> None:
        """Sends numbers, except those that the run ends with already."""
        new = [point for point in points if self._numbers[run].get(point.key) != point.value]
        self._log_points(run, new)
        self._numbers[run] |= {point.key: point.value for point in new}

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

    def model(
        self, folder: Path, code: Path, requirements: list[str], code_paths: list[Path], name: str, column: str,
        parameters: dict[str, Any], options: dict[str, Any], tags: dict[str, str],
    ) -> str:  # fmt: skip
        known = registry.version_of(self.client, name, tags["weights"])
        if known is not None:
            return known
        mlflow = store.mlflow()
        mlflow.set_tracking_uri(self.uri)  # what follows goes to the global store and experiment
        mlflow.set_experiment(experiment_id=self.experiment)
        columns = mlflow.types.Schema([mlflow.types.ColSpec("string", column)])
        signature = mlflow.models.ModelSignature(inputs=columns, params=_params_schema(parameters))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # asks for an example of an input
            info = mlflow.models.Model.log(
                artifact_path=None,
                name="model",
                flavor=mlflow.pyfunc,
                run_id=self.child,
                python_model=str(code),
                artifacts={"model": str(folder)},
                code_paths=[str(path) for path in code_paths],
                pip_requirements=requirements,
                signature=signature,
                model_config=options,
            )
        return registry.register(self.client, name, info, self.child, tags)

    def champion(self, name: str) -> str:
        return registry.champion(self.client, name)

    def crown(self, name: str, version: str) -> bool:
        self.client.set_registered_model_alias(name, registry.CHAMPION, version)
        return True

    def describe(self, name: str, version: str, text: str) -> None:
        self.client.update_model_version(name, version, text)

    def note(self, text: str) -> None:
        """Makes `text` the parent's description, unless somebody else wrote one there."""
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
    """Opens the store, and joins the runs of `tracking.json` or creates them, as begun at `started` (Unix seconds)."""
    store.mlflow()
    from mlflow import MlflowClient
    from mlflow.tracking.context.registry import resolve_tags

    uri, folder = config.tracking.uri, config.run.dir
    with ExitStack() as locks:
        if (database := store.database(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_patient_lock(database.with_name(database.name + ".lock")))
        locks.enter_context(_patient_lock(folder / "tracking.lock"))
        client = MlflowClient(uri, uri)
        experiment = _experiment(client, config.tracking.experiment, database)
        ids = _read_ids(folder / "tracking.json")
        tags, start = resolve_tags(), int(started * 1000)  # user, program, commit
        parent = _known(client, ids["parent"])
        if parent is None:
            parent = client.create_run(experiment, start, tags | {run_record.RUN_TAG: config.run.name}, run_note.run_name(config))
            ids = {"parent": parent.info.run_id, "stages": {}}
            files.write_json(folder / "tracking.json", ids)
        child = _known(client, ids["stages"].get(name))
        if child is None:
            tags |= {"mlflow.parentRunId": parent.info.run_id}
            child = client.create_run(experiment, start, tags, run_note.stage_name(config, name))
            ids["stages"][name] = child.info.run_id
            files.write_json(folder / "tracking.json", ids)
    for run in (parent, child):
        client.update_run(run.info.run_id, status="RUNNING")
    status_before = child.info.status if child.info.status != "RUNNING" else "FINISHED"
    return Runs(client, uri, parent.info.run_id, child.info.run_id, status_before)


def _experiment(client: Any, name: str, database: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        place = (database.parent / "mlartifacts" / quote(name, safe="")).absolute().as_uri() if database else None
        # The tag keeps the UI from asking, at every opening, what kind of experiment this is.
        return str(client.create_experiment(name, artifact_location=place, tags={"mlflow.experimentKind": "custom_model_development"}))
    return str(found.experiment_id)


def _known(client: Any, run_id: str | None) -> Any:
    """The run, or None where the store has none of that id (it is another one, or a new one) or has it in its bin."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if store.is_absent(error):
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _read_ids(path: Path) -> dict[str, Any]:
    try:
        values = files.read_json(path)
        return {"parent": str(values["parent"]), "stages": dict(values["stages"])}
    except (PacklmError, KeyError, TypeError, ValueError):  # none yet, or damaged: new runs then
        return {"parent": None, "stages": {}}


def forget(path: Path, name: str) -> None:
    ids = _read_ids(path)
    if ids["stages"].pop(name, None):
        try:
            files.write_json(path, ids)
        except PacklmError as error:  # then the stage goes on in its old run
            log.warning("tracking: %s", error)


@contextmanager
def _patient_lock(path: Path) -> Iterator[None]:
    """Takes the lock file `path`, waiting for whoever holds it."""
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


def _params_schema(parameters: Mapping[str, Any]) -> Any:
    from mlflow.types import ParamSchema, ParamSpec

    kinds = {bool: "boolean", int: "long", float: "double", str: "string", list: "string"}  # lists are of strings
    shapes = {list: (-1,)}
    return ParamSchema([ParamSpec(key, kinds[type(value)], value, shapes.get(type(value))) for key, value in parameters.items()])

"""The record of what was run, in MLflow: one parent run for a pipeline, one child run for each stage.

    with tracking.stage(config, "train") as recorder:
        recorder.params({"parameters": 1_234_567})
        recorder.mirror(config.run.dir / "train" / "metrics.jsonl")

The ids of the runs are kept in `run.dir/tracking.json`, so that a stage started alone joins its parent, and a restarted one goes
on in its own run. Everything is sent from a thread (`pipeline.courier`): no method of a recorder waits for the store, except
`log_model`, and none raises. Only this module imports mlflow, and only when there is something to record. Under torchrun, rank 0
records; where `tracking.uri` is empty, nobody does.
"""

import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline import files, notes, recorded, registry
from pipeline.config import Config, Tracking
from pipeline.courier import Courier
from pipeline.errors import PacklmError, RequestError, Stopped
from pipeline.log import rank
from pipeline.mirror import Point
from pipeline.recorder import Recorder, flat, without_credentials

log = logging.getLogger("packlm")

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the courier tries again itself; by default one call to a server that is down takes minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # at the end of every run that a server keeps, among the results
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What mlflow is told, unless the environment says otherwise."""
NOTE, NOTE_TAG = "mlflow.note.content", "mlflow.packlm.note"
"""The tag that MLflow shows as a run's description, and the one that holds the digest of what we wrote there last (as its name begins with
`mlflow.`, no page shows it)."""
LOCK_SECONDS = 60.0
"""How long a stage waits for another one that is creating the store or the runs."""
LOGGED_TABLES = 60
"""Most tables that MLflow's table view is told of, the latest ones (its tag holds 8,000 characters)."""


@contextmanager
def stage(config: Config, name: str, fresh: bool = False) -> Iterator[Recorder]:
    """Records a stage: its run is RUNNING within the block, then FINISHED, FAILED, or KILLED if a signal ended it.

    Args:
        fresh: the stage starts over (`--rebuild`), so it gets a new run: its points lie at steps that the old run has already.
    """
    if rank() != 0 or not config.tracking.uri:
        yield Recorder()
        return
    if fresh:
        _forget(config.run.dir / "tracking.json", name)
    courier = _courier(config, name)
    status = "FINISHED"
    try:
        _post_note(courier, config)
        yield Recorder(courier)
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    except BaseException as error:
        status = "FINISHED" if isinstance(error, SystemExit) and not error.code else "FAILED"
        raise
    finally:
        _post_note(courier, config)
        courier.post(lambda runs: runs.end(status))
        _warn_of_unsent(courier, config)


def sync(config: Config) -> None:
    """Sends what is in the `metrics.jsonl` of each stage below `run.dir` and is not in MLflow yet.

    Raises:
        RequestError: no metrics there, or nowhere to send them.
        PacklmError: MLflow does not answer.
    """
    found = sorted(config.run.dir.glob("*/metrics.jsonl"))
    if not found:
        raise RequestError(f"{config.run.dir}: no metrics.jsonl of any stage here; `make train` writes one")
    if not config.tracking.uri:
        raise RequestError("tracking.uri is empty: there is nowhere to send the metrics to")
    for path in found:
        name = path.parent.name
        courier = _courier(config, name)
        courier.follow(path)
        courier.post(lambda runs: runs.end(runs.status_before))
        lines, others = courier.close()
        if lines or others:
            raise PacklmError(f"{path}: {lines:,} lines were not sent to {without_credentials(config.tracking.uri)}: {courier.reason}")
        log.info("%s: all of it is in MLflow", path)


def declare_model(load: Callable[[Path, dict[str, Any]], Any], predict: Callable[[Any, Any, dict[str, Any]], Any]) -> None:
    """Called by the code file that goes with a recorded model: says how MLflow opens and uses it.

    Args:
        load: makes a model of our model folder and the `model_config` that MLflow was given.
        predict: answers (model, DataFrame of inputs, params); its `RequestError` becomes one that a server answers with status 400.
    """
    mlflow = _mlflow()

    class Answers:  # a class apart: PythonModel warns of a `predict` without type hints, and with them MLflow would drop `params`
        def load_context(self, context: Any) -> None:
            self.model = load(Path(context.artifacts["model"]), dict(context.model_config or {}))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            try:
                return predict(self.model, model_input, params or {})
            except RequestError as error:
                raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from None

    class Model(Answers, mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        pass

    mlflow.models.set_model(Model())


def fetch_model(address: str, tracking: Tracking) -> Path:
    """Downloads a registered model (`models:/NAME@ALIAS`, `models:/NAME/3`); returns its folder, kept until the program ends.

    Raises:
        RequestError: there is no such model.
        PacklmError: the registry does not answer, or what it holds is not one of our models.
    """
    if not tracking.uri:
        raise RequestError(f"{address}: tracking.uri is empty, so there is no registry; give a model folder, or --tracking.uri")
    mlflow = _mlflow()
    mlflow.set_tracking_uri(tracking.uri)
    target = tempfile.mkdtemp(prefix="packlm-model-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    store = without_credentials(tracking.uri)
    try:
        downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=target))
        kept = mlflow.models.Model.load(str(downloaded)).flavors["python_function"]["artifacts"]["model"]["path"]
    except (KeyError, TypeError):
        raise PacklmError(f"{address}: not a model recorded by packlm (no model folder in it)") from None
    except Exception as error:
        if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            reason = _describe(error, tracking.uri)
            raise RequestError(
                f"{address}: no such model in {store} ({reason}); `make evaluate` registers one, `make ui` shows those there are"
            ) from None
        raise PacklmError(f"{address}: {store} did not hand it out: {_describe(error, tracking.uri)}") from None
    return downloaded / str(kept)


def read_run(wanted: str, tracking: Tracking) -> recorded.Record:
    """What MLflow has of a run, by its id or name.

    Raises:
        RequestError: there is no such run.
        PacklmError: the store does not answer.
    """
    store = without_credentials(tracking.uri)
    if not tracking.uri:
        raise RequestError(f"{wanted}: no run's folder, and tracking.uri is empty: there is no record to look in")
    _mlflow()
    from mlflow import MlflowClient

    try:
        found = recorded.find(MlflowClient(tracking.uri, tracking.uri), tracking.experiment, wanted)
    except Exception as error:
        raise PacklmError(f"{wanted}: {store} does not answer: {_describe(error, tracking.uri)}") from None
    if found is None:
        raise RequestError(f"{wanted}: no run's folder, and no run of this id or name in {store}, experiment {tracking.experiment}")
    return found


class _Runs:
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
        store = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        store(self.child, str(path), folder or None)

    def model(
        self, folder: Path, code: Path, requirements: list[str], code_paths: list[Path], name: str, column: str,
        parameters: dict[str, Any], options: dict[str, Any], tags: dict[str, str],
    ) -> str:  # fmt: skip
        known = registry.version_of(self.client, name, tags["weights"])
        if known is not None:
            return known
        mlflow = _mlflow()
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


def _courier(config: Config, name: str) -> Courier[_Runs]:
    """Starts the thread that records stage `name`; the settings go to the parent first."""
    started = time.time()
    courier = Courier(lambda: _connect(config, name, started), lambda error: _describe(error, config.tracking.uri))
    settings = flat(config.model_dump(mode="json"))
    courier.post(lambda runs: runs.params(runs.parent, settings))
    return courier


def _post_note(courier: Courier[_Runs], config: Config) -> None:
    try:
        text = notes.note(config)
    except PacklmError as error:  # a damaged file: its own stage complains
        log.warning("tracking: no note on the run: %s", error)
    else:
        courier.post(lambda runs: runs.note(text))


def _connect(config: Config, name: str, started: float) -> _Runs:
    """Opens the store, and joins the runs of `tracking.json` or creates them, as begun at `started` (Unix seconds)."""
    _mlflow()
    from mlflow import MlflowClient
    from mlflow.tracking.context.registry import resolve_tags

    uri, folder = config.tracking.uri, config.run.dir
    with ExitStack() as locks:
        if (database := _database(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_patient_lock(database.with_name(database.name + ".lock")))
        locks.enter_context(_patient_lock(folder / "tracking.lock"))
        client = MlflowClient(uri, uri)
        experiment = _experiment(client, config.tracking.experiment, database)
        ids = _read_ids(folder / "tracking.json")
        tags, start = resolve_tags(), int(started * 1000)  # user, program, commit
        parent = _known(client, ids["parent"])
        if parent is None:
            parent = client.create_run(experiment, start, tags | {recorded.RUN_TAG: config.run.name}, notes.run_name(config))
            ids = {"parent": parent.info.run_id, "stages": {}}
            files.write_json(folder / "tracking.json", ids)
        child = _known(client, ids["stages"].get(name))
        if child is None:
            child = client.create_run(experiment, start, tags | {"mlflow.parentRunId": parent.info.run_id}, notes.stage_name(config, name))
            ids["stages"][name] = child.info.run_id
            files.write_json(folder / "tracking.json", ids)
    for run in (parent, child):
        client.update_run(run.info.run_id, status="RUNNING")
    status_before = child.info.status if child.info.status != "RUNNING" else "FINISHED"
    return _Runs(client, uri, parent.info.run_id, child.info.run_id, status_before)


def _mlflow() -> Any:
    """Imports mlflow (2.5 to 3.5 s the first time), quiet and with short timeouts, also where something else has imported it before."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if "mlflow" not in sys.modules:
        for name in ("alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
    import mlflow
    import mlflow.pyfunc

    return mlflow


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
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _read_ids(path: Path) -> dict[str, Any]:
    try:
        values = files.read_json(path)
        return {"parent": str(values["parent"]), "stages": dict(values["stages"])}
    except (PacklmError, KeyError, TypeError, ValueError):  # none yet, or damaged: new runs then
        return {"parent": None, "stages": {}}


def _forget(path: Path, name: str) -> None:
    ids = _read_ids(path)
    if ids["stages"].pop(name, None):
        try:
            files.write_json(path, ids)
        except PacklmError as error:  # then the stage goes on in its old run
            log.warning("tracking: %s", error)


def _database(uri: str) -> Path | None:
    """The file of an SQLite store. Two processes that create one at once leave it broken for good, so they take turns."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


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


def _describe(error: Exception, uri: str) -> str:
    """The first line of an error, without credentials."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return without_credentials(text.replace(uri, without_credentials(uri)))[:160]


def _warn_of_unsent(courier: Courier[_Runs], config: Config) -> None:
    lines, others = courier.close()
    if lines or others:
        log.warning(
            "tracking: %d lines of metrics and %d other records were not sent to %s (%s); the lines are sent by `python -m pipeline sync`, "
            "or when the stage goes on",
            lines, others, without_credentials(config.tracking.uri), courier.reason,
        )  # fmt: skip

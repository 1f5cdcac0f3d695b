"""Models in MLflow: logged and registered as versions of a name, downloaded by their address, loaded and called by MLflow itself."""

import atexit
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packlm import config as configuration
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Tracking
from packlm.tracking import store

CHAMPION = "champion"
"""The alias of the best version: `models:/NAME@champion`."""


@dataclass(frozen=True)
class LoggedModel:
    """A model folder, and how MLflow is to serve it."""

    folder: Path
    """Our model folder; `declare_model`'s `load` gets a copy of it."""
    code: Path
    """The Python file that calls `declare_model`."""
    requirements: list[str]
    """pip requirements of a program that loads it."""
    code_paths: list[Path]
    """Packages that are stored with it."""
    name: str
    """Its name in the registry."""
    column: str
    """The column of text that `predict` reads."""
    outputs: Mapping[str, Any]
    """The columns that it returns, and their types by MLflow's names: a list of a type is an array, a mapping an object."""
    parameters: Mapping[str, Any]
    """The `params` that `predict` accepts, with their defaults; MLflow drops all others."""
    options: Mapping[str, Any]
    """The default `model_config` that `load` gets."""
    tags: Mapping[str, str]
    """Tags of the version; `weights`, their digest, identifies it."""


def log_model(client: Any, uri: str, experiment: str, run: str, parent: str, model: LoggedModel) -> str:
    """Logs a model to a run and registers it as a version of its name; returns the version, the old one if it has these weights.

    The page of the parent run shows the model, too.
    """
    versions = client.search_model_versions(f"name = '{model.name}' and tag.weights = '{model.tags['weights']}'")
    if versions:
        latest = max(versions, key=lambda version: int(version.version))
        _link(client, parent, str(latest.source).removeprefix("models:/"))  # `model_id` is empty in the answers of a server
        return str(latest.version)
    mlflow = store.mlflow()
    mlflow.set_tracking_uri(uri)  # `Model.log` uses the global store and experiment
    mlflow.set_experiment(experiment_id=experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # asks for an example of an input
        info = mlflow.models.Model.log(
            artifact_path=None,
            name=re.sub(r"[/:.%\"']", "-", model.name),  # which MLflow does not take here
            flavor=mlflow.pyfunc,
            run_id=run,
            python_model=str(model.code),
            artifacts={"model": str(model.folder)},
            code_paths=[str(path) for path in model.code_paths],
            pip_requirements=model.requirements,
            signature=_signature(model),
            model_config=dict(model.options),
        )
    _link(client, parent, info.model_id)
    try:
        client.create_registered_model(model.name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version(model.name, info.model_uri, run, tags=dict(model.tags), model_id=info.model_id).version)


def _link(client: Any, run: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    if model_id not in [output.model_id for output in client.get_run(run).outputs.model_outputs]:
        client.log_outputs(run, [LoggedModelOutput(model_id, 0)])


def champion(client: Any, name: str) -> str:
    """The version with the alias `champion`; empty if none has it."""
    try:
        return str(client.get_model_version_by_alias(name, CHAMPION).version)
    except Exception as error:
        if store.is_absent(error):
            return ""
        raise


def set_champion(client: Any, name: str, version: str) -> bool:
    """Moves the alias `champion` to a version."""
    client.set_registered_model_alias(name, CHAMPION, version)
    return True


def folder_of(address: str | Path, tracking: Tracking | None = None) -> Path:
    """The folder of a model: `address` itself, or the model of a registry address, downloaded and kept until the program ends.

    Args:
        address: a folder, or `models:/NAME@ALIAS`, `models:/NAME/3`.
        tracking: where the registry is; by default what the environment says.

    Raises:
        RequestError: the registry has no such model.
        PacklmError: the registry does not answer, or the model was not logged by packlm.
    """
    if not str(address).startswith("models:/"):
        return Path(address)
    return _download(str(address), tracking or configuration.load().tracking)


def _download(address: str, tracking: Tracking) -> Path:
    if not tracking.uri:
        raise RequestError(f"{address}: tracking.uri is empty, so there is no registry; give a model folder, or --tracking.uri")
    where = store.existing(tracking, address)
    mlflow = store.mlflow()
    mlflow.set_tracking_uri(tracking.uri)
    target = tempfile.mkdtemp(prefix="packlm-model-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=target))
        model_path = mlflow.models.Model.load(str(folder)).flavors["python_function"]["artifacts"]["model"]["path"]
    except (KeyError, TypeError):
        raise PacklmError(f"{address}: not a model logged by packlm (it holds no model folder)") from None
    except Exception as error:
        reason = store.describe(error, tracking.uri)
        if store.is_absent(error):
            hint = "`packlm evaluate` registers one"
            raise RequestError(f"{address}: no such model in {where} ({reason}); {hint}") from None
        raise PacklmError(f"{address}: the download from {where} failed: {reason}") from None
    return folder / str(model_path)


def declare_model(load: Callable[[Path, dict[str, Any]], Any], predict: Callable[[Any, Any, dict[str, Any]], Any]) -> None:
    """Tells MLflow how to load and call a logged model; called by the code file that is stored with it.

    Args:
        load: makes a model from our model folder and MLflow's `model_config`.
        predict: answers (model, DataFrame of inputs, params); its `RequestError` becomes an error that a server answers with status 400.
    """
    mlflow = store.mlflow()

    class Base:  # apart from PythonModel, which warns of a `predict` without type hints, and with them would drop `params`
        def load_context(self, context: Any) -> None:
            self.model = load(Path(context.artifacts["model"]), dict(context.model_config or {}))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            try:
                return predict(self.model, model_input, params or {})
            except RequestError as error:
                raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from None

    class Model(Base, mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        pass

    mlflow.models.set_model(Model())


def _signature(model: LoggedModel) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    inputs = Schema([ColSpec("string", model.column)])
    outputs = Schema([ColSpec(_column_type(kind), name, required=name == model.column) for name, kind in model.outputs.items()])
    types = {bool: "boolean", int: "long", float: "double", str: "string", list: "string"}  # lists are of strings
    shapes = {list: (-1,)}
    params = [ParamSpec(key, types[type(value)], value, shapes.get(type(value))) for key, value in model.parameters.items()]
    return ModelSignature(inputs=inputs, outputs=outputs, params=ParamSchema(params))


def _column_type(kind: Any) -> Any:
    """MLflow's type for an entry of `LoggedModel.outputs`."""
    from mlflow.types.schema import Array, DataType, Object, Property

    if isinstance(kind, Mapping):
        return Object([Property(name, _column_type(value)) for name, value in kind.items()])
    return Array(_column_type(kind[0])) if isinstance(kind, list) else DataType[kind]

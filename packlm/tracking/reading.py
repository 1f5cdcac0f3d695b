"""What a store has: a registered model, the record of a run."""

import atexit
import shutil
import tempfile
from pathlib import Path

from packlm import config as configuration
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Tracking
from packlm.tracking import run_record, store


def folder_of(address: str | Path, tracking: Tracking | None = None) -> Path:
    """The folder of a model: `address` itself, or, of a registry address, the model downloaded, kept until the program ends.

    Args:
        address: a folder, or `models:/NAME@ALIAS`, `models:/NAME/3`.
        tracking: where the registry is; the environment says, unless given.

    Raises:
        RequestError: the registry has no such model.
        PacklmError: it does not answer, or what it holds is not one of our models.
    """
    if not str(address).startswith("models:/"):
        return Path(address)
    return _downloaded(str(address), tracking or configuration.load().tracking)


def _downloaded(address: str, tracking: Tracking) -> Path:
    if not tracking.uri:
        raise RequestError(f"{address}: tracking.uri is empty, so there is no registry; give a model folder, or --tracking.uri")
    where = _open(f"{address}:", tracking)
    mlflow = store.mlflow()
    mlflow.set_tracking_uri(tracking.uri)
    target = tempfile.mkdtemp(prefix="packlm-model-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=target))
        kept = mlflow.models.Model.load(str(downloaded)).flavors["python_function"]["artifacts"]["model"]["path"]
    except (KeyError, TypeError):
        raise PacklmError(f"{address}: not a model recorded by packlm (no model folder in it)") from None
    except Exception as error:
        if store.is_absent(error):
            reason = store.describe(error, tracking.uri)
            raise RequestError(
                f"{address}: no such model in {where} ({reason}); `make evaluate` registers one, `make ui` shows those there are"
            ) from None
        raise PacklmError(f"{address}: {where} did not hand it out: {store.describe(error, tracking.uri)}") from None
    return downloaded / str(kept)


def read_run(wanted: str, tracking: Tracking) -> run_record.Record:
    """What MLflow has of a run, by its id or name.

    Raises:
        RequestError: there is no such run.
        PacklmError: the store does not answer.
    """
    if not tracking.uri:
        raise RequestError(f"{wanted}: no run's folder, and tracking.uri is empty: there is no record to look in")
    where = _open(f"{wanted}: no run's folder, and", tracking)
    store.mlflow()
    from mlflow import MlflowClient

    try:
        found = run_record.find(MlflowClient(tracking.uri, tracking.uri), tracking.experiment, wanted)
    except Exception as error:
        raise PacklmError(f"{wanted}: {where} does not answer: {store.describe(error, tracking.uri)}") from None
    if found is None:
        raise RequestError(f"{wanted}: no run's folder, and no run of this id or name in {where}, experiment {tracking.experiment}")
    return found


def _open(wanted: str, tracking: Tracking) -> str:
    """How messages call the store; `RequestError`, which begins as `wanted`, where it is a database that is not there: whoever looks into
    it would create it."""
    where, database = without_credentials(tracking.uri), store.database(tracking.uri)
    if database is not None and not database.exists():
        raise RequestError(f"{wanted} nothing was recorded in {where} yet: `make train` records a run, `make evaluate` a model")
    return where

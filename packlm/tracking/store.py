"""MLflow itself: imported late and quietly, and its errors made readable."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from packlm.base.credentials import without_credentials
from packlm.base.errors import RequestError
from packlm.config import Tracking

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the outbox retries by itself; by default one call to a server that is down takes minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for results
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Options of mlflow, unless the environment sets them."""


def mlflow() -> Any:
    """Imports mlflow (2.5 to 3.5 s the first time), quiet and with short timeouts, also where something else has imported it before."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if "mlflow" not in sys.modules:
        for name in ("alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
    import mlflow
    import mlflow.pyfunc

    return mlflow


def database(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def existing(tracking: Tracking, subject: str) -> str:
    """The store's address, without credentials, for messages; a `RequestError` about `subject` if its database does not exist.

    Reading from a database that does not exist, or is empty, would create it.
    """
    address, path = without_credentials(tracking.uri), database(tracking.uri)
    if path is not None and (not path.exists() or (path.is_file() and not path.stat().st_size)):
        raise RequestError(f"{subject}: nothing was recorded in {address} yet: `packlm train` records a run, `packlm evaluate` a model")
    return address


def is_absent(error: Exception) -> bool:
    """Whether an error of mlflow's says that there is no such run, model, version or alias, for which it has two codes."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


REFUSALS = (
    "FEATURE_DISABLED", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "MALFORMED_REQUEST", "NOT_IMPLEMENTED", "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST",
)  # fmt: skip
"""MLflow's codes of errors that are the record's fault. All others (a lock, a time-out, a damaged file) may pass or be repaired."""


def is_refusal(error: Exception) -> bool:
    """Whether a record that raised `error` would raise it again: the store does not take it, or its file is gone."""
    if (code := getattr(error, "error_code", None)) is not None:
        return code in REFUSALS
    return isinstance(error, FileNotFoundError) or not (isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy"))


def describe(error: Exception, uri: str) -> str:
    """The first line of an error, without credentials."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return without_credentials(text.replace(uri, without_credentials(uri)))[:160]

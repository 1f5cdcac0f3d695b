"""MLflow itself: imported late and quietly, and its errors in our words."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from packlm.base.credentials import without_credentials

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
    """The file of an SQLite store. Two processes that create one at once leave it broken for good, so they take turns."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def is_absent(error: Exception) -> bool:
    """Whether an error of mlflow's says that there is no such run, model, version or alias: it has two codes for that."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def describe(error: Exception, uri: str) -> str:
    """The first line of an error, without credentials."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return without_credentials(text.replace(uri, without_credentials(uri)))[:160]

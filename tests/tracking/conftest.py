"""Settings and metrics files for these tests."""

import logging
import os
from collections.abc import Iterator

import pytest

from tests.records import make_config, store_folder, write_metrics  # noqa: F401


@pytest.fixture(autouse=True)
def _no_global_store() -> Iterator[None]:
    """mlflow writes the store that it used last to the environment, where our configuration would read it."""
    before = dict(os.environ)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update(before)


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Records of our log, which does not propagate after a command has set it up."""
    logger = logging.getLogger("packlm")
    logger.propagate = True
    caplog.set_level(logging.INFO, logger="packlm")
    return caplog

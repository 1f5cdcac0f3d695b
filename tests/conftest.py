"""Settings of all tests."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A slow machine is no wrong answer.
settings.register_profile("packlm", deadline=None)
settings.load_profile("packlm")


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """A command that a test runs in this process sends our log elsewhere; the next test finds it as it was."""
    logger = logging.getLogger("packlm")
    yield
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)

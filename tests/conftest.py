"""Settings of all tests."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

from packlm.base import program
from tests import forked

# A test may take as long as the machine needs: slowness is not a failure.
settings.register_profile("packlm", deadline=None)
settings.load_profile("packlm")

program.share_processors()  # before a test imports torch

forked.prepare()

LONG = ("faults", "train", "tracking", "pipeline", "preprocess")
"""Folders whose tests start processes. They come first, or one worker would run the last of them while the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def order(item: pytest.Item) -> int:
        return next((LONG.index(part) for part in item.nodeid.split("/") if part in LONG), len(LONG))

    items.sort(key=order)


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """A command that a test runs in this process sends our log elsewhere; the next test finds it as it was."""
    logger = logging.getLogger("packlm")
    yield
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the cache of `datasets` with the files of the tests, for this process and those it starts."""
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder that `PACKLM_CORPORA` names, with the corpora `ptb`, `shakespeare` and `wsj_articles`; skips the test if unset."""
    if "PACKLM_CORPORA" not in os.environ:
        pytest.skip("PACKLM_CORPORA is not set")
    return Path(os.environ["PACKLM_CORPORA"])


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m STAGE WORDS` in this process: (exit status, standard output, standard error)."""

    def run(stage: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [stage, *map(str, words)])
        status = 0
        try:
            import_module(f"{stage}.cli").main()
        except SystemExit as exit:
            status = int(exit.code or 0)
        return status, *capsys.readouterr()

    return run

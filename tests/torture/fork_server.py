"""Runs commands in forked children of one process that has imported everything: real processes, a fraction of a second each.

The parent has one thread: no library may start another in it. A child gets its own working folder, arguments, environment and standard
streams, runs the `main` of its stage, and ends as an interpreter ends.
"""

import atexit
import importlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from .verdict import Ended

DEADLINE_SECONDS = 90.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "RUST_BACKTRACE": "0",
}  # fmt: skip
_MODULES = (
    "torch", "datasets", "matplotlib.figure", "pyarrow.parquet", "sentencex", "pipeline.compare", "pipeline.stages",
    "preprocess.build.stage", "preprocess.inspect_dataset", "preprocess.record", "train.stage", "train.progress.curves",
    "serve.evaluate.command", "serve.evaluate.stage", "serve.generate.command", "serve.generate.stage", "serve.score.command",
    "serve.pairs.command", "serve.rescore.command", "packlm.engine", "preprocess.cli", "train.cli", "serve.cli", "pipeline.cli",
)  # fmt: skip


def start() -> None:
    """Imports once, with one thread, what the commands import."""
    os.environ |= ENVIRONMENT
    for name in [name for name in os.environ if name.startswith(("PACKLM_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))]:
        del os.environ[name]
    for module in _MODULES:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    assert threading.active_count() == 1, threading.enumerate()


class Command:
    """A command in a forked child."""

    def __init__(
        self, words: list[str], folder: Path, before: Callable[[], None] | None = None, deadline: float = DEADLINE_SECONDS,
        environment: Mapping[str, str] | None = None,
    ):  # fmt: skip
        """Starts it in `folder`.

        Args:
            words: stage, verb and arguments.
            before: called in the child before the command, to install a fault.
            deadline: seconds; the command is then killed.
        """
        self._began, self._deadline = time.monotonic(), deadline
        self._streams = tuple(os.memfd_create(name) for name in ("in", "out", "errors"))
        self._child = os.fork()
        if self._child == 0:
            _run_in_child(words, folder, before, self._streams, environment or {})

    def end(self) -> Ended:
        """Waits for the end."""
        try:
            status = _wait(self._child, self._deadline - (time.monotonic() - self._began))
            return Ended(status, _content(self._streams[1]), _content(self._streams[2]), time.monotonic() - self._began)
        finally:
            for descriptor in self._streams:
                os.close(descriptor)


def _wait(child: int, deadline: float) -> int | None:
    descriptor = os.pidfd_open(child)
    try:
        done = select.select([descriptor], [], [], max(0.0, deadline))[0]
        if not done:
            os.killpg(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status if done else None
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 22, 0).decode(errors="backslashreplace")


def _run_in_child(
    words: list[str], folder: Path, before: Callable[[], None] | None, streams: tuple[int, ...], environment: Mapping[str, str]
) -> None:
    status = 1
    try:
        atexit._clear()  # what the parent is to clean up
        os.setsid()
        os.chdir(folder)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.environ |= environment
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        sys.stdin = os.fdopen(0, encoding="utf-8")
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8") for number in (1, 2))
        sys.argv = list(words)
        if before:
            before()
        try:
            importlib.import_module(f"{words[0]}.cli").main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        if sys.stdout:
            sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)

"""Processes of tests that are forks of a server (of `multiprocessing`) that has imported torch and mlflow, which takes seconds.

They are the ranks of `tests.ranks`, and the processes that send records to MLflow for stages that run in a test's own process. The commands
that a test runs start as they do for a user.
"""

import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from packlm.tracking import sender

PRELOADED = (  # not `datasets`, which reads the folder of its cache when it is imported
    "torch._dynamo", "train.trainer",
    "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store", "packlm.tracking.sender_main",
)  # fmt: skip


def prepare() -> None:
    """Names what the server imports when the first process is started, and lets it start the senders."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    sender.subprocess = SimpleNamespace(Popen=Sender, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


class Sender:
    """What `packlm.tracking.sender` uses of a `subprocess.Popen`."""

    def __init__(self, command: list[str], **streams: Any):
        child_stdin, stdin = multiprocessing.Pipe(duplex=False)
        stdout, child_stdout = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_send, args=(child_stdin, child_stdout, dict(os.environ), os.getcwd()), daemon=True)
        self._process.start()
        self.stdin, self.stdout = os.fdopen(os.dup(stdin.fileno()), "wb"), os.fdopen(os.dup(stdout.fileno()), "rb")
        for connection in (child_stdin, stdin, stdout, child_stdout):
            connection.close()
        self.kill, self.wait = self._process.kill, self._process.join


def _send(stdin: Connection, stdout: Connection, environment: dict[str, str], folder: str) -> None:
    """The process, as its command line would start it."""
    os.dup2(stdin.fileno(), 0)
    os.dup2(stdout.fileno(), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    stdin.close()
    stdout.close()
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    from packlm.tracking import sender_main

    sender_main.main()

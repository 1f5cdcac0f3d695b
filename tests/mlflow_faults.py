"""MLflow stores that fail, each in its own way, as real servers, files and locks.

with fault("dripping") as uri:
    ...  # record to `uri`
"""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from packlm.base import files

SERVERS = ("refused", "silent", "dripping", "error500", "half_closed", "restarted")
"""Servers, by what they do to a client; `restarted` is killed `restart_after` seconds after it began to serve, and started again."""
STORES = ("locked_file", "locked_database", "read_only", "folder", "no_database", "truncated")
"""SQLite stores: the lock of its creation or a write transaction is held, its folder takes no files, or it is something else."""
MODES = SERVERS + STORES


@contextmanager
def fault(mode: str, port: int = 0, restart_after: float = 1.0) -> Iterator[str]:
    """The address of a store that fails as `mode` says during the block.

    Args:
        port: of the server; 0 for any free one.
    """
    port = port or free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlflow-fault-")))
        if mode == "refused":
            yield f"http://127.0.0.1:{port}"
        elif mode == "restarted":
            yield stack.enter_context(_restarted(folder, port, restart_after))
        elif mode in SERVERS:
            stack.enter_context(_serving(port, {"silent": _silent, "dripping": _drip, "error500": _fail, "half_closed": _close_half}[mode]))
            yield f"http://127.0.0.1:{port}"
        else:
            yield f"sqlite:///{stack.enter_context(_store(mode, folder))}"


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A real server with its store in `folder`; in the block it answers."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        "sqlite:///server.db",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "server.log", "a") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment, process_group=0)
    try:
        wait_for_health(port, 120)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for_health(port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no MLflow server on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(port: int, answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[None]:
    """Accepts connections and lets `answer` have each, in a thread, after the head of the request was read."""
    over = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(600)
            received = b""
            while b"\r\n\r\n" not in received and (data := connection.recv(65536)):
                received += data
            answer(connection, over)

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = listening.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", port), backlog=50) as listening:
        listening.settimeout(0.2)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _silent(connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def _drip(connection: socket.socket, over: threading.Event) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000:
        connection.sendall(bytes([byte]))
        if over.wait(2):
            break


def _fail(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfail")


def _close_half(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    connection.shutdown(socket.SHUT_WR)
    over.wait()


@contextmanager
def _restarted(folder: Path, port: int, after: float) -> Iterator[str]:
    over = threading.Event()

    def restart() -> None:
        over.wait(after)
        first.close()
        with mlflow_server(folder, port):
            over.wait()

    with ExitStack() as first:
        first.enter_context(mlflow_server(folder, port))
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            over.set()
            thread.join()


@contextmanager
def _store(mode: str, folder: Path) -> Iterator[Path]:
    path = folder / "mlflow.db"
    if mode == "locked_file":
        with files.lock(folder / "mlflow.db.lock"):
            yield path
    elif mode == "locked_database":
        _create(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield path
    elif mode == "read_only":
        yield Path("/sys/packlm/mlflow.db")  # root, too, cannot make a folder there
    elif mode == "folder":
        path.mkdir()
        yield path
    elif mode == "no_database":
        path.write_text("These are notes, and no database.\n" * 400)
        yield path
    else:
        _create(path)
        os.truncate(path, path.stat().st_size // 3)
        yield path


def _create(path: Path) -> None:
    program = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').search_experiments()"
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, cwd=path.parent)

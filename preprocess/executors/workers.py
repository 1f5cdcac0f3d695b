"""Worker processes: each runs one task at a time for its parent process, and exits with it.

A worker is a fresh interpreter (never forked, and the main program is not imported again) that uses one core, connected to its parent
by a pipe. If the worker dies its end of the pipe closes, so the parent knows at once which task was lost; if the parent dies, even by
kill -9, the parent's end closes and the worker exits in the middle of its task.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol

from packlm.base import errors, log, memory
from packlm.base.errors import PacklmError


class ExecutorTask(Protocol):
    """The interface of a task. A task is pickled, so it must consist of what can be."""

    @property
    def name(self) -> str:
        """The name used in messages."""

    @property
    def size(self) -> int:
        """Bytes of text, for the progress bar and the order of tasks."""


ONE_CORE = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",  # Arrow's compute threads too
    "ARROW_IO_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Environment of a worker: there is one for each processor, so libraries must not start a thread for each processor in each worker."""

MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Environment of a worker, unless set by the user: Arrow uses the allocator that keeps freed memory (`memory.keep_freed`), which uses
huge pages: faster, and fewer pages held."""

LESS_MEMORY = "resume by running the same command again with fewer --dataset.workers"
"""The remedy in messages about a lack of memory."""

_START = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import serve; serve(int(sys.argv[1]))"


class WorkerDied(Exception):
    """A worker process exited in the middle of a task; the message says how."""


def killed_twice(name: str, death: WorkerDied) -> PacklmError:
    """The error for a task whose process died again although it ran alone."""
    remedy = "if memory is short, provide more, or split its documents; resume by running the same command again"
    return PacklmError(f"{name}: its process died twice (the second time it {death}); {remedy}")


class Worker:
    """A process that runs tasks in the working directory `folder`; by default in that of this process."""

    def __init__(self, folder: str | None = None):
        self.connection, worker_end = Pipe()
        """Readable once a task is done, or the process dead."""
        with worker_end:
            descriptor = worker_end.fileno()
            # In a session of its own: Ctrl-C reaches only the parent, which ends its workers without a traceback of each.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(descriptor), *sys.path],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                env={**MALLOC, **os.environ, **ONE_CORE},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, function: Callable[[Any], None], task: ExecutorTask) -> None:
        """Starts a task: calls `function`, importable by name, on it. At most one task at a time."""
        message = pickle.dumps((function, task))
        with contextlib.suppress(OSError):  # a dead process is reported by `result`
            self.connection.send_bytes(message)

    def result(self) -> None:
        """Waits for the end of the task, and raises its exception if there was one.

        Raises:
            WorkerDied: the process was killed, or exited.
        """
        try:
            error = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise WorkerDied(_exit_text(self._process.wait())) from None
        if error is not None:
            raise error

    def end(self) -> None:
        """Kills the process, in the middle of a task or not, and waits for its exit."""
        self._process.kill()
        self._process.wait()
        self.connection.close()


def _exit_text(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def serve(descriptor: int) -> None:
    """The main function of a worker process: runs the tasks that come through the pipe, until that closes."""
    connection, messages = Connection(descriptor), queue.SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(connection, messages), daemon=True).start()
    log.setup()
    sys.meta_path.insert(0, _NoPandas())
    memory.keep_freed()  # each block of text allocates arrays of the same sizes
    while True:
        connection.send_bytes(_run_task(messages.get()))


class _NoPandas(MetaPathFinder):
    """Makes `import pandas` fail: Arrow would spend half a second on importing it, only to check whether an array is a pandas object."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _listen(connection: Connection, messages: "queue.SimpleQueue[bytes]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            messages.put(connection.recv_bytes())
    os._exit(1)


def _run_task(message: bytes) -> bytes:
    """Runs a pickled (function, task); returns the pickled exception that was raised, or None."""
    error: BaseException | None = None
    try:
        function, task = pickle.loads(message)
        function(task)
    except MemoryError:
        name = pickle.loads(message)[1].name
        error = PacklmError(f"{name}: out of memory; {LESS_MEMORY}")
    except BaseException as caught:
        error = caught
        if not isinstance(caught, PacklmError):
            caught.add_note("in a worker process:\n" + traceback.format_exc().rstrip())
            caught.location = errors.location(caught)  # type: ignore[attr-defined]
    return _pickled(error)


def _pickled(error: BaseException | None) -> bytes:
    """An exception for the parent process; a `RuntimeError` if it cannot be pickled, or would end the parent as its own does."""
    with contextlib.suppress(Exception):
        outcome = pickle.dumps(error)
        pickle.loads(outcome)
        if error is None or isinstance(error, Exception):
            return outcome
    assert error is not None
    function = traceback.extract_tb(error.__traceback__)[-1].name
    substitute = RuntimeError(f"{type(error).__name__}: {error} (in {function})")
    substitute.__dict__.update(__notes__=getattr(error, "__notes__", []), location=getattr(error, "location", None))
    return pickle.dumps(substitute)

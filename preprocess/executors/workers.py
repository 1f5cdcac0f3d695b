"""A process that does one task at a time for the process that started it, and ends with it.

It is a fresh interpreter (nothing is forked, and the main program is not run again), one core wide. A pipe joins the two. The
worker's end closes when it dies, so its starter sees at once which task was lost; the starter's end closes when that one dies,
however it dies (kill -9 too), and the worker ends in the middle of whatever it is doing.
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

from packlm.base import log, memory
from packlm.base.errors import PacklmError


class ExecutorTask(Protocol):
    """What a task must have."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def size(self) -> int:
        """Bytes of text, for the progress bar, and for what goes first."""


ONE_CORE = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",  # Arrow's compute threads too
    "ARROW_IO_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""A worker is one of as many as there are processors: no library may start threads for each of them again."""

ROOMY = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow shares the allocator that keeps what was freed (`memory.keep_freed`), and that asks for large pages: less time, fewer pages held.
What somebody has set already stays."""

LESS_MEMORY = "run it again to go on, with fewer --dataset.workers"
"""What helps where memory is short."""

_START = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import serve; serve(int(sys.argv[1]))"


class WorkerDied(Exception):
    """The worker process ended in the middle of a task; the message says how."""


def killed_twice(name: str, how: WorkerDied) -> PacklmError:
    """The error for a task whose process died again, with nothing else to blame."""
    remedy = "if memory is short, give it more, or make its documents smaller; what is done stays, and the same command goes on"
    return PacklmError(f"{name}: its process died twice (the second time it {how}); {remedy}")


class Worker:
    """A process that calls functions on tasks, in the folder `folder` (else the current one).

    `function` is the first it will be asked for: what that needs is imported before there is a task.
    """

    def __init__(self, function: Callable[[Any], None], folder: str | None = None):
        self.connection, theirs = Pipe()
        """Readable once a task is done, or the process dead."""
        with theirs:
            descriptor = theirs.fileno()
            # A session of its own: Ctrl-C goes to the starter alone, which ends its workers without their tracebacks.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(descriptor), *sys.path],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                env={**ROOMY, **os.environ, **ONE_CORE},
                cwd=folder,
                start_new_session=True,
            )
        self._send(function)

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, function: Callable[[Any], None], task: ExecutorTask) -> None:
        """Starts a task: calls `function`, importable by name, on it. At most one at a time."""
        self._send((function, task))

    def result(self) -> None:
        """Waits for the end of the task, and raises what it raised.

        Raises:
            Died: the process was killed, or ended by itself.
        """
        try:
            error = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise WorkerDied(_ending(self._process.wait())) from None
        if error is not None:
            raise error

    def end(self) -> None:
        """Ends the process, in the middle of a task or not, and returns once it is gone."""
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _send(self, value: Any) -> None:
        message = pickle.dumps(value)
        with contextlib.suppress(OSError):  # a dead process is found out by `result`
            self.connection.send_bytes(message)


def _ending(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def serve(descriptor: int) -> None:
    """What a worker process does: the tasks that come through the pipe, until that closes."""
    connection, messages = Connection(descriptor), queue.SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(connection, messages), daemon=True).start()
    log.setup()
    sys.meta_path.insert(0, _NoPandas())
    memory.keep_freed()  # block after block asks for arrays of the same size
    with contextlib.suppress(Exception):  # what fails here does so again with the first task, and is told then
        pickle.loads(messages.get())
    while True:
        connection.send_bytes(_outcome(messages.get()))


class _NoPandas(MetaPathFinder):
    """Says that pandas is not there: Arrow would take half a second to import it, only to see whether an array is one of its own."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _listen(connection: Connection, messages: "queue.SimpleQueue[bytes]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            messages.put(connection.recv_bytes())
    os._exit(1)


def _outcome(message: bytes) -> bytes:
    """What a task raised, pickled; None pickled if it went well."""
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
    try:
        outcome = pickle.dumps(error)
        pickle.loads(outcome)
    except Exception:  # some libraries' errors cannot travel
        outcome = pickle.dumps(RuntimeError("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])))
    return outcome

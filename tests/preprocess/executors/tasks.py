"""Tasks for the tests of executors: they succeed, fail, die or wait."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from packlm.base.errors import RequestError


@dataclass(frozen=True)
class Task:
    name: str
    folder: Path
    size: int = 1
    deaths: int = 0
    """This many of the first attempts die, by the signal that the kernel sends when memory runs out."""
    raises: str = ""
    seconds: float = 0.0
    """Duration of the task; meanwhile it adds lines to `NAME.running`."""


def work(task: Task) -> None:
    with open(task.folder / f"{task.name}.tries", "a") as tries:
        tries.write(f"{os.getpid()}\n")
    if len(tried(task)) <= task.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.raises == "request":
        raise RequestError(f"{task.name} is wrong")
    if task.raises == "own":
        raise Unsendable(task.name, 2)
    if task.raises == "memory":
        raise MemoryError
    end = time.monotonic() + task.seconds
    while time.monotonic() < end:
        with open(task.folder / f"{task.name}.running", "a") as running:
            running.write("x\n")
        time.sleep(0.01)
    (task.folder / task.name).write_text(task.name * task.size)


class Unsendable(ValueError):
    """Cannot be unpickled: its constructor takes other arguments than it stores."""

    def __init__(self, name: str, number: int):
        super().__init__(f"{name} {number} is odd")


def tried(task: Task) -> list[int]:
    """Ids of the processes that attempted a task, in order."""
    path = task.folder / f"{task.name}.tries"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def cores(task: Task) -> None:
    """Writes the number of threads that libraries would use."""
    import pyarrow as pa

    counts = [pa.cpu_count(), pa.io_thread_count(), os.environ.get("TOKENIZERS_PARALLELISM"), os.environ.get("RAYON_NUM_THREADS")]
    (task.folder / task.name).write_text(str(counts))


def imports(task: Task) -> None:
    """Passes an array to Arrow, and writes whether pandas was imported for it."""
    import numpy as np
    import pyarrow as pa

    assert pa.array(np.arange(3)).to_pylist() == [0, 1, 2]
    (task.folder / task.name).write_text(str("pandas" in sys.modules))


def alive(pid: int) -> bool:
    """Whether a process runs (and is not a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    """Waits for a condition; fails after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Ids of the processes that a process has started and that still run."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []

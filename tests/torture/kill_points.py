"""Kills a process at the Kth time that it opens a file for writing, syncs, renames or removes one: at every step of what it writes.

python tests/torture/kill_points.py K RANK COMMAND...     runs `python COMMAND...`; under torchrun only rank RANK is killed
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def install(at: int, count_in: Path | None = None) -> None:
    """Kills this process (kill -9) right before its event number `at`; writes the number of events so far to `count_in` at each one."""
    numbers, process = itertools.count(1), os.getpid()
    counting = os.open(count_in, os.O_WRONLY | os.O_CREAT) if count_in else None

    def event() -> None:
        if os.getpid() != process:
            return
        number = next(numbers)
        if counting is not None:
            os.pwrite(counting, str(number).encode(), 0)
        if number == at:
            os.kill(process, signal.SIGKILL)

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name in _EVENTS or (name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            event()

    sync: Callable[[int], None] = os.fsync

    def fsync(descriptor: int) -> None:
        event()
        sync(descriptor)

    os.fsync = fsync  # there is no audit event for it
    sys.addaudithook(audit)

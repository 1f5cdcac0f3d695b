"""What every program of ours does first: signals, standard streams, threads, log, and one line for whatever exception comes.

A signal becomes a `KeyboardInterrupt` in the main thread, wherever that is, importing included: `finally` and `with` clean up, and
`errors.run` makes it one line and status 75. A part that can stop better by itself (a training after its step, a pipeline after its stage)
puts its own handlers in the place of these meanwhile.
"""

import atexit
import io
import logging
import os
import signal
import sys
import threading
import time
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from packlm.base import errors
from packlm.base import log as logs

log = logging.getLogger("packlm")

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10.0
"""Time that a stopped program has to clean up. It is more than a library's code that does not return to Python may leave it."""


def run(module: str) -> None:
    """Runs `main` of a module, imported by name, as the program of this process, and exits with its status."""
    _open_standard_streams()
    raise_on_signals()
    share_processors()
    logs.setup()
    threading.excepthook = lambda thread: log.critical("%s", errors.unexpected(thread.exc_value or thread.exc_type()))
    sys.unraisablehook = _in_a_finalizer
    atexit.register(_replace_handlers, signal.SIG_IGN)  # the last to be called: then Python would set the default, which kills
    try:
        errors.run(lambda: import_module(module).main())
    finally:
        _replace_handlers(_too_late)


def share_processors() -> None:
    """Lets threads that wait for others of a matrix product sleep after some microseconds: must run before torch is imported.

    By default they keep their processor busy for milliseconds: two trainings of two threads on two processors then made 0.41 of the steps
    of one alone, both together, and 0.83 with this; alone, a training is between 2 % faster and 5 % slower (a report of 2026-11-28).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def raise_on_signals() -> None:
    """Makes signals raise `KeyboardInterrupt`, but those that are ignored (`nohup`, a shell's background jobs)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(reader,), name="signals", daemon=True).start()


def _raise(number: int, frame: FrameType | None) -> None:
    _replace_handlers(_too_late)  # a second one would interrupt the cleaning up
    raise KeyboardInterrupt(signal.Signals(number).name)


def _replace_handlers(handler: Any) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) in (_raise, _too_late):
            signal.signal(number, handler)


def _too_late(number: int, frame: FrameType | None) -> None:
    """Does nothing: the program is ending."""


def _end_after_grace(reader: int) -> None:
    """Ends the process if a signal has not done it: code of a library that does not return, or swallowed the exception.

    The signal's number arrives here even if the main thread is not in Python.
    """
    while True:
        (number,) = os.read(reader, 1)
        if signal.getsignal(number) in (_raise, _too_late):
            time.sleep(GRACE_SECONDS)
            name = signal.Signals(number).name
            log.error("stopped by %s, without cleaning up", name)
            os._exit(errors.STOPPED)


def _in_a_finalizer(caught: "sys.UnraisableHookArgs") -> None:
    """Names an exception in a finalizer or at exit, which changes nothing else."""
    if caught.exc_value is not None and not isinstance(caught.exc_value, KeyboardInterrupt):
        log.warning("%s", errors.unexpected(caught.exc_value))


class _StandardOutput(io.FileIO):
    """Standard output, which its errors name."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = errors.STANDARD_OUTPUT
            raise


def _open_standard_streams() -> None:
    """Opens standard streams that the caller has closed (`>&-`) so that using them fails: else the next file would get their numbers."""
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    buffer = io.BufferedWriter(_StandardOutput(1, "w", closefd=False))
    encoding, handler = (sys.stdout.encoding, sys.stdout.errors) if sys.stdout else ("utf-8", "strict")
    sys.stdout = io.TextIOWrapper(buffer, encoding, handler, line_buffering=os.isatty(1))

"""Errors that are shown to the user, and the exit status of each; the last line of defence against all others.

0: done. 1: failed. 2: wrong request, found before any work. 75: stopped by a signal.
"""

import difflib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from packlm.base.credentials import without_credentials
from packlm.base.escape import Multiline, one_line

log = logging.getLogger("packlm")

FAILED, WRONG_REQUEST, STOPPED = 1, 2, 75

STANDARD_OUTPUT = "standard output"
"""The file name of an error in writing to it (`packlm.base.program`)."""


class PacklmError(Exception):
    """A failure; the message names the file or setting, what was found there, and the remedy.

    It is one line, whatever a name in it contains: a line feed in a file's name does not begin another line. `escape.lines` makes several.
    """

    status = FAILED

    def __init__(self, message: str):
        super().__init__(message if isinstance(message, Multiline) else one_line(message))


class RequestError(PacklmError):
    """A wrong setting or argument, or a missing input; nothing was done."""

    status = WRONG_REQUEST


class Stopped(PacklmError):
    """A signal ended the work."""

    status = STOPPED


@contextmanager
def resumable() -> Iterator[None]:
    """Marks work that goes on where it was stopped when its command is run again: within the block, the message of a signal says so."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(f"stopped by {str(error) or 'SIGINT'}; resume by running the same command again") from None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean X?` for the known word most similar to a misspelled one; `otherwise` if none is similar."""
    names = {name.lstrip("-"): name for name in known}  # dashes that all options have would make any two of them similar
    matches = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.5)
    return f"did you mean {names[matches[0]]}?" if matches else otherwise


def reason(error: OSError) -> str:
    """What the operating system says, and the remedy."""
    remedy = _REMEDIES.get(error.errno or 0)
    return "; ".join(filter(None, [error.strerror or str(error), remedy]))


_REMEDIES = {
    errno.ENOENT: "make its folder first, or correct the path",
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.EEXIST: "a part of the path is a file: give another path",
    errno.EISDIR: "give the name of a file",
    errno.EACCES: "give another path, or change its permissions",
    errno.EPERM: "give another path, or change its permissions",
    errno.EROFS: "give a path on another file system",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its symbolic links lead to each other: give another path",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.EIO: "check the disk and the messages of the kernel",
}


def run(main: Callable[[], None], less_memory: str = "") -> None:
    """Runs `main`; any exception becomes one message without a traceback, and the exit status.

    Args:
        less_memory: how the command can be run with less memory.
    """
    try:
        main()
        if sys.stdout:
            sys.stdout.flush()
    except BaseException as error:
        eval("None")  # a KeyboardInterrupt within exec("...") (named tuples, dataclasses) would kill Python at its end; this clears that
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            raise
        sys.exit(_report(error, less_memory))


def _report(error: BaseException, less_memory: str) -> int:
    """Logs an exception; returns the exit status. What need not happen to all ranks is critical: the level that every rank shows."""
    if isinstance(error, PacklmError):
        log.error("%s", error)
        return error.status
    if isinstance(error, KeyboardInterrupt):
        log.error("stopped by %s", str(error) or "SIGINT")
        return STOPPED
    if lacks_memory(error):
        log.critical("%s", "; ".join(filter(None, ["out of memory", _one_line(error, 160), less_memory])))
        return FAILED
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        sys.stdout = None
        if isinstance(error, BrokenPipeError):  # its reader (`| head`) has closed it
            return 0
        log.error("%s cannot be written: %s", STANDARD_OUTPUT, "it is closed" if error.errno == errno.EBADF else error.strerror)
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        log.critical("%s", without_credentials(f"{_text_of(error.filename)}: {reason(error)}"))
        return FAILED
    line = unexpected(error)
    if isinstance(error, UnicodeEncodeError):
        line += f"; where {error.encoding} is the encoding of the terminal, set PYTHONUTF8=1"
    log.critical("%s", line)
    return FAILED


def unexpected(error: BaseException) -> str:
    """One line for an exception that nobody foresaw; its trace goes to a new file that only this user can read."""
    where = getattr(error, "location", None) or location(error)
    return without_credentials(f"unexpected: {type(error).__name__}: {_one_line(error, 300)} ({where}); {_write_trace(error)}")


def location(error: BaseException) -> str:
    """`folder/file.py:line` of the innermost frame of an exception."""
    trace = error.__traceback__
    if trace is None:
        return "no line"
    while trace.tb_next:
        trace = trace.tb_next
    return f"{'/'.join(Path(trace.tb_frame.f_code.co_filename).parts[-2:])}:{trace.tb_lineno}"


def _write_trace(error: BaseException) -> str:
    """Writes the trace to the system's temporary folder; says where."""
    import tempfile
    import traceback

    try:
        descriptor, path = tempfile.mkstemp(prefix="packlm-", suffix=".trace.txt")  # mode 0600
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(without_credentials("".join(traceback.format_exception(error))))
    except OSError as refusal:
        return f"the trace could not be written ({refusal.filename or 'temporary folder'}: {refusal.strerror or refusal})"
    return f"the full trace is in {path}"


def _one_line(error: BaseException, length: int) -> str:
    try:
        text = " ".join(without_credentials(str(error)).split())  # before it is cut: half a secret is not recognized
    except Exception:
        text = "(it has no text)"
    return text if len(text) <= length else text[: length - 4] + " ..."


def _text_of(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)


def lacks_memory(error: BaseException) -> bool:
    """Whether it is Python's error, torch's for GPUs, or torch's for CPUs, which has no class of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)

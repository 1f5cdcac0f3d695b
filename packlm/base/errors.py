"""Errors that are shown to the user, and the exit status of each.

0: done. 1: failed. 2: wrong request, found before any work. 75: stopped by a signal, can be resumed.
"""

import difflib
import logging
import sys
import textwrap
from collections.abc import Callable, Iterable

from packlm.base.escape import Lines, one_line

log = logging.getLogger("packlm")

FAILED, WRONG_REQUEST, STOPPED = 1, 2, 75


class PacklmError(Exception):
    """A failure; the message names the file or setting, what was found there, and the remedy.

    It is one line, whatever a name in it contains: a line feed in a file's name does not begin another line. `escape.lines` makes several.
    """

    status = FAILED

    def __init__(self, message: str):
        super().__init__(message if isinstance(message, Lines) else one_line(message))


class RequestError(PacklmError):
    """A wrong setting or argument, or a missing input; nothing was done."""

    status = WRONG_REQUEST


class Stopped(PacklmError):
    """A signal ended the work; it can be resumed."""

    status = STOPPED


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean X?` for the known word most similar to a misspelled one; `otherwise` if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {matches[0]}?" if matches else otherwise


def run(main: Callable[[], None], less_memory: str = "") -> None:
    """Runs `main`; a `PacklmError`, an interrupt or a lack of memory becomes one message without a traceback, and the exit status.

    Args:
        less_memory: how the command can be run with less memory.
    """
    try:
        main()
    except PacklmError as error:
        log.error("%s", error)
        sys.exit(error.status)
    except KeyboardInterrupt:
        log.error("interrupted; resume by running the same command again")
        sys.exit(STOPPED)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        reason = textwrap.shorten(str(error), 160, placeholder=" ...")
        log.critical("%s", "; ".join(filter(None, ["out of memory", reason, less_memory])))  # shown by every rank
        sys.exit(FAILED)
    except BrokenPipeError:  # the reader of standard output (`| head`) has closed it
        sys.stdout = None
        sys.exit(0)


def _lacks_memory(error: Exception) -> bool:
    """Whether it is Python's error, torch's for GPUs, or torch's for CPUs, which has no class of its own."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)

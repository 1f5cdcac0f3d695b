"""Errors meant for the person at the keyboard, and the exit status each one becomes.

0: done. 1: it failed. 2: the request was wrong, found before any work. 75: stopped by a signal, resumable.
"""

import difflib
import logging
import sys
import textwrap
from collections.abc import Callable, Iterable

log = logging.getLogger("packlm")

FAILED, WRONG_REQUEST, STOPPED = 1, 2, 75


class PacklmError(Exception):
    """Something went wrong; the message says what was found, where, and what to do about it."""

    status = FAILED


class RequestError(PacklmError):
    """The configuration, an argument or a missing input makes the request impossible; nothing was done."""

    status = WRONG_REQUEST


class Stopped(PacklmError):
    """A signal ended the work at a point from which it can go on."""

    status = STOPPED


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean X?` for the known word most like a word that is not known; `otherwise` where none is like it."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise


def run(main: Callable[[], None], less_memory: str = "") -> None:
    """Runs a command's `main` and exits with its status: our errors become one message, without a traceback, and so does a lack of memory.

    Args:
        less_memory: what the command needs less memory with.
    """
    try:
        main()
    except PacklmError as error:
        log.error("%s", error)
        sys.exit(error.status)
    except KeyboardInterrupt:
        log.error("interrupted; run the same command again to go on")
        sys.exit(STOPPED)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        found = textwrap.shorten(str(error), 160, placeholder=" ...")
        log.critical("%s", "; ".join(filter(None, ["out of memory", found, less_memory])))  # on whichever rank it is
        sys.exit(FAILED)
    except BrokenPipeError:  # whoever read our standard output (`| head`) has enough
        sys.stdout = None
        sys.exit(0)


def _lacks_memory(error: Exception) -> bool:
    """Of the three kinds: Python's own, torch's on GPUs, and torch's on CPUs, which has no class of its own."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)

"""Logging and progress bars on standard error; under torchrun, those of rank 0."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from packlm.base import escape
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError

if TYPE_CHECKING:
    from tqdm import tqdm


def rank() -> int:
    """The rank of this process under torchrun, else 0."""
    return int(os.environ.get("RANK", "0"))


def setup() -> None:
    """Sends the log to standard error: rank 0 from INFO, other ranks from CRITICAL with their rank in front.

    An error is usually raised on all ranks, so one message is enough.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    prefix = f"[rank {rank()}] " if several and rank() else ""
    if sys.stderr is not None and not isinstance(sys.stderr, _WithoutCredentials):
        sys.stderr = _WithoutCredentials(sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(prefix))
    # Weight drop creates new weights at every step, which are never one contiguous chunk; cuDNN would warn each time.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
    logger = logging.getLogger("packlm")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank() == 0 else logging.CRITICAL)


class _WithoutCredentials:
    """Standard error without credentials: what libraries log there, progress bars and tracebacks included, is not ours to check."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(without_credentials(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Plain(logging.Formatter):
    """Formats information as the message alone, anything more severe with its level in front.

    The format of a message is ours, line feeds in it included; what it is filled with may be a name from outside, and stays in one line.
    """

    def __init__(self, prefix: str):
        super().__init__("%(message)s")
        self.prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord(record.__dict__ | {"args": tuple(map(_shown, record.args))})
        return self.prefix + level + super().format(record)


def _shown(argument: object) -> object:
    """An argument of a message as it is formatted: numbers as they are, our own lines as lines, all else in one line."""
    if isinstance(argument, int | float | escape.Multiline):
        return argument
    return str(argument) if isinstance(argument, PacklmError) else escape.one_line(argument)


def progress(items: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """A tqdm progress bar on standard error; disabled unless it is a terminal and this is rank 0."""
    from tqdm import tqdm

    visible = sys.stderr.isatty() and rank() == 0
    return tqdm(items, disable=not visible, dynamic_ncols=True, leave=False, **options)

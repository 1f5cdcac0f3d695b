"""Logging and progress bars on standard error; under torchrun, those of rank 0."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(prefix))
    # Weight drop creates new weights at every step, which are never one contiguous chunk; cuDNN would warn each time.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
    logger = logging.getLogger("packlm")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank() == 0 else logging.CRITICAL)


class _Plain(logging.Formatter):
    """Formats information as the message alone, anything more severe with its level in front."""

    def __init__(self, prefix: str):
        super().__init__("%(message)s")
        self.prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return self.prefix + level + super().format(record)


def progress(items: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """A tqdm progress bar on standard error; disabled unless it is a terminal and this is rank 0."""
    from tqdm import tqdm

    visible = sys.stderr.isatty() and rank() == 0
    return tqdm(items, disable=not visible, dynamic_ncols=True, leave=False, **options)

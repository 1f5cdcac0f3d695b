"""Logging and progress: standard error, quiet by default, one voice among many ranks."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def rank() -> int:
    """This process's rank under torchrun, 0 anywhere else."""
    return int(os.environ.get("RANK", "0"))


def setup() -> None:
    """Sends our log to standard error: rank 0 from INFO, the others from CRITICAL, each line saying its rank among several.

    Other ranks fail for the reason rank 0 names, so one message is enough.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    prefix = f"[rank {rank()}] " if several and rank() else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(prefix))
    # What weight drop makes of a layer's weights never lies in one piece; cuDNN would say so at every step.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
    logger = logging.getLogger("packlm")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank() == 0 else logging.CRITICAL)


class _Plain(logging.Formatter):
    """The message alone for information; the level in front of anything worse."""

    def __init__(self, prefix: str):
        super().__init__("%(message)s")
        self.prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return self.prefix + level + super().format(record)


def progress(items: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """A tqdm bar on standard error, silent where nobody watches: not a terminal, or not rank 0."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() and rank() == 0
    return tqdm(items, disable=not watched, dynamic_ncols=True, leave=False, **options)

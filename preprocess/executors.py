"""Runs tasks in spawned processes, or here if one is enough."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from pipeline.errors import PacklmError
from pipeline.log import progress

log = logging.getLogger("packlm")


class Named(Protocol):
    """A task that can be called by name in a message."""

    @property
    def name(self) -> str: ...


Task = TypeVar("Task", bound=Named)


def run(function: Callable[[Task], None], tasks: Sequence[Task], workers: int) -> None:
    """Calls `function`, importable by name, on every task, in up to `workers` processes. What it does must bear being done twice.

    The tasks of a process that was killed are tried once more. Whatever a task raises is raised here, and no other task begins.

    Raises:
        PacklmError: a process was killed again; names the tasks that are not done.
    """
    with progress(total=len(tasks), desc="shards") as bar:
        if min(workers, len(tasks)) <= 1:
            for task in tasks:
                function(task)
                bar.update()
            return
        left = list(tasks)
        for attempt in (1, 2):
            left = _attempt(function, left, workers, bar.update)
            if not left:
                return
            if attempt == 1:
                log.warning("a worker process was killed (out of memory?); trying again: %s", ", ".join(task.name for task in left))
    names = ", ".join(task.name for task in left)
    remedy = "run it again to go on, with fewer --dataset.workers if memory was short"
    raise PacklmError(f"a worker process was killed twice; not done: {names}; {remedy}")


def _attempt(function: Callable[[Task], None], tasks: Sequence[Task], workers: int, advance: Callable[[], object]) -> list[Task]:
    """Runs the tasks; returns those that a killed process left undone."""
    left = dict(enumerate(tasks))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_alone) as pool:
        futures = {pool.submit(function, task): index for index, task in left.items()}
        try:
            for future in as_completed(futures):
                future.result()
                del left[futures[future]]
                advance()
        except BrokenProcessPool:  # every future that was not done raises it
            return [left[index] for future, index in futures.items() if index in left and future.exception() is not None]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return list(left.values())


def _alone() -> None:
    """A worker is one of many: tokenizers must not start threads for every processor in each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

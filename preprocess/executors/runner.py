"""Runs the tasks of a step: in worker processes of this machine, or through an executor of datatrove (`clusters`)."""

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from packlm import config
from packlm.base import memory
from packlm.base.log import progress

from . import clusters
from .workers import ExecutorTask, Worker, WorkerDied, killed_twice

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=ExecutorTask)


class TaskRunner:
    """Runs the tasks of one step after another. A context manager: on exit its worker processes are terminated.

    Worker processes stay from one step to the next, since each takes a second to start and fills an encoding cache.
    """

    def __init__(self, settings: config.Dataset):
        """Checks that the executor can run here, before any work.

        Raises:
            RequestError: a package or a command is missing, or `dataset.slurm` is wrong.
        """
        if settings.executor != "processes":
            clusters.check(settings)
        self._settings = settings
        self._num_workers = settings.workers or os.cpu_count() or 1
        self._idle: list[Worker] = []

    def __enter__(self) -> "TaskRunner":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_idle_workers()

    def run(self, function: Callable[[Task], None], tasks: Sequence[Task], label: str, records: Path) -> None:
        """Calls `function` on every task, the largest first, so that none is waited for at the end.

        A task must not depend on other tasks, and must be safe to run twice: one whose process is killed is retried once, alone.
        An exception of a task ends all others and is raised here.

        Args:
            function: importable by name.
            label: names the step in the progress bar and the log.
            records: folder in which an executor may keep logs.

        Raises:
            PacklmError: the process of a retried task was killed again; names the task.
        """
        ordered = sorted(tasks, key=lambda task: -task.size)
        with progress(total=sum(task.size for task in tasks), desc=label, unit="B", unit_scale=True) as bar:

            def on_done(task: Task) -> None:
                bar.update(task.size)

            if self._settings.executor != "processes":
                clusters.run(function, ordered, self._settings, label, records, on_done)
            elif min(self._num_workers, len(tasks)) > 1:
                self._run_in_workers(function, ordered, on_done)
            else:
                if len(tasks) > 1:  # a single one may be large, and is better off without the memory that others have freed
                    memory.keep_freed()
                for task in ordered:
                    function(task)
                    on_done(task)

    def _run_in_workers(self, function: Callable[[Task], None], tasks: Sequence[Task], on_done: Callable[[Task], object]) -> None:
        """Tasks whose process was killed are retried last, one at a time: one that needs much memory then has all there is, and it is
        certain which task killed its process."""
        pending, retries = deque(tasks), deque[Task]()
        busy: dict[Worker, Task] = {}
        try:
            while pending or busy or retries:
                if alone := not pending and not busy:
                    self._end_idle_workers()
                queue, limit = (retries, 1) if alone else (pending, self._num_workers)
                while queue and len(busy) < limit:
                    worker = self._idle.pop() if self._idle else Worker()
                    busy[worker] = queue.popleft()
                    worker.begin(function, busy[worker])
                ready = wait([worker.connection for worker in busy])
                for worker in [worker for worker in busy if worker.connection in ready]:
                    task = busy[worker]
                    try:
                        worker.result()
                        self._idle.append(worker)
                        on_done(task)
                    except WorkerDied as death:
                        worker.end()
                        if alone:
                            raise killed_twice(task.name, death) from None
                        log.warning("%s: its process %s (out of memory?); retrying at the end, one task at a time", task.name, death)
                        retries.append(task)
                    del busy[worker]
        finally:
            for worker in busy:
                worker.end()

    def _end_idle_workers(self) -> None:
        while self._idle:
            self._idle.pop().end()

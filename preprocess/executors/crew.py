"""Who runs the tasks: processes of this machine, or an executor of datatrove (`preprocess.executors.clusters`)."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from packlm import config
from packlm.base import memory
from packlm.base.log import progress

from . import clusters
from .arriving import ArrivingTasks
from .workers import ExecutorTask, Worker, WorkerDied, killed_twice

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=ExecutorTask)


class TaskRunner:
    """Whoever runs the tasks of a dataset, step after step. As a context manager: no process is left behind.

    Processes of this machine stay from one step to the next, since each takes a second to come up and knows the words it has met.
    """

    def __init__(self, settings: config.Dataset):
        """Whether the chosen executor can run here is found out before any work.

        Raises:
            RequestError: a package or a command is missing, or Slurm's options are wrong.
        """
        if settings.executor != "processes":
            clusters.check(settings)
        self._settings = settings
        self._workers = settings.workers or os.cpu_count() or 1
        self._idle: list[Worker] = []

    def __enter__(self) -> "TaskRunner":
        return self

    def __exit__(self, *about: object) -> None:
        self._end_idle()

    def parallel(self, tasks: int) -> bool:
        """Whether so many tasks are done by several processes of this machine."""
        return self._settings.executor == "processes" and min(self._workers, tasks) > 1

    def expect(self, function: Callable[[Task], None], tasks: int) -> None:
        """Has processes come up for a step of about so many tasks, while something else is done."""
        if self.parallel(tasks):
            self._idle += [Worker(function) for _ in range(min(self._workers, tasks) - len(self._idle))]

    def run(
        self,
        function: Callable[[Task], None],
        tasks: Sequence[Task],
        what: str,
        records: Path,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Calls `function`, importable by name, on every task; the largest go first, so that nobody waits for one at the end.

        What a task does must not depend on the others, and must bear being done twice. A task whose process is killed is tried
        once more, by itself. Whatever a task raises is raised here, and then no task goes on. `what` names the tasks in the
        progress bar; in the folder `records` an executor may keep logs. `meanwhile` is called where this process would wait for
        others that run the first tasks; it should take no longer than these.

        Raises:
            PacklmError: a task's process was killed again; names that task.
        """
        ordered = sorted(tasks, key=lambda task: -task.size)
        with progress(total=sum(task.size for task in tasks), desc=what, unit="B", unit_scale=True) as bar:

            def finished(task: Task) -> None:
                bar.update(task.size)

            if self._settings.executor != "processes":
                clusters.run(function, ordered, self._settings, what, records, finished)
            elif self.parallel(len(tasks)):
                self._here(function, ordered, None, finished, meanwhile)
            else:
                if len(tasks) > 1:  # a single one may be large, and takes no more memory than it must
                    memory.keep_freed()
                for task in ordered:
                    function(task)
                    finished(task)

    def run_arriving(self, function: Callable[[Task], None], tasks: Iterator[Task], what: str, size: int) -> None:
        """`run` of tasks that are still being found, by several processes of this machine: the first begin while others are awaited.

        `size`: bytes of text in all of them, about. What `tasks` raises is raised here too.
        """
        with progress(total=size, desc=what, unit="B", unit_scale=True) as bar:
            self._here(function, (), ArrivingTasks(tasks), lambda task: bar.update(task.size), None)

    def _here(
        self,
        function: Callable[[Task], None],
        tasks: Sequence[Task],
        arriving: ArrivingTasks[Task] | None,
        finished: Callable[[Task], object],
        meanwhile: Callable[[], None] | None,
    ) -> None:
        """Runs the tasks in processes of this machine. Those whose process was killed come last, one at a time: so one that needs
        much memory has all there is, and one that kills its process cannot bring others under suspicion."""
        waiting, suspects = deque(tasks), deque[Task]()
        busy: dict[Worker, Task] = {}
        try:
            while waiting or busy or suspects or arriving:
                if alone := not waiting and not busy and not arriving:
                    self._end_idle()
                queue, places = (suspects, 1) if alone else (waiting, self._workers)
                while queue and len(busy) < places:
                    worker = self._idle.pop() if self._idle else Worker(function)
                    busy[worker] = queue.popleft()
                    worker.begin(function, busy[worker])
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                ready = wait([worker.connection for worker in busy] + ([arriving.connection] if arriving else []))
                if arriving and arriving.connection in ready:
                    if (task := arriving.take()) is not None:
                        waiting.append(task)
                    else:
                        arriving = None
                for worker in [worker for worker in busy if worker.connection in ready]:
                    task = busy[worker]
                    try:
                        worker.result()
                        self._idle.append(worker)
                        finished(task)
                    except WorkerDied as how:
                        worker.end()
                        if alone:
                            raise killed_twice(task.name, how) from None
                        log.warning("%s: its process %s (out of memory?); it is tried again at the end, by itself", task.name, how)
                        suspects.append(task)
                    del busy[worker]
        finally:
            for worker in busy:
                worker.end()

    def _end_idle(self) -> None:
        while self._idle:
            self._idle.pop().end()

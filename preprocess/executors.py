"""Who runs the tasks: processes of this machine, or an executor of datatrove (`preprocess.clusters`)."""

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from pipeline import config, memory
from pipeline.log import progress
from preprocess import clusters
from preprocess.workers import Died, Sized, Worker, killed_twice

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=Sized)


class Crew:
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

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *about: object) -> None:
        self._end_idle()

    def expect(self, function: Callable[[Task], None], tasks: int) -> None:
        """Has processes come up for a step of about so many tasks, while something else is done."""
        if self._settings.executor == "processes" and (workers := min(self._workers, tasks)) > 1:
            self._idle += [Worker(function) for _ in range(workers - len(self._idle))]

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
            elif min(self._workers, len(tasks)) <= 1:
                if len(tasks) > 1:  # a single one may be large, and takes no more memory than it must
                    memory.keep_freed()
                for task in ordered:
                    function(task)
                    finished(task)
            else:
                self._here(function, ordered, finished, meanwhile)

    def _here(
        self,
        function: Callable[[Task], None],
        tasks: Sequence[Task],
        finished: Callable[[Task], None],
        meanwhile: Callable[[], None] | None,
    ) -> None:
        """Runs the tasks in processes of this machine. Those whose process was killed come last, one at a time: so one that needs
        much memory has all there is, and one that kills its process cannot bring others under suspicion."""
        waiting, suspects = deque(tasks), deque[Task]()
        busy: dict[Worker, Task] = {}
        try:
            while waiting or busy or suspects:
                if alone := not waiting and not busy:
                    self._end_idle()
                queue, places = (suspects, 1) if alone else (waiting, self._workers)
                while queue and len(busy) < places:
                    worker = self._idle.pop() if self._idle else Worker(function)
                    busy[worker] = queue.popleft()
                    worker.begin(function, busy[worker])
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                ready = wait([worker.connection for worker in busy])
                for worker in [worker for worker in busy if worker.connection in ready]:
                    task = busy[worker]
                    try:
                        worker.result()
                        self._idle.append(worker)
                        finished(task)
                    except Died as how:
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

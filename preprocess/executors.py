"""Who runs the tasks: processes of this machine, or an executor of datatrove (`preprocess.clusters`)."""

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from pipeline import config
from pipeline.log import progress
from preprocess import clusters
from preprocess.workers import Died, Sized, Worker, killed_twice

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=Sized)


def check(settings: config.Dataset) -> None:
    """Whether the chosen executor can run here; for before any work.

    Raises:
        RequestError: a package or a command is missing, or Slurm's options are wrong.
    """
    if settings.executor != "processes":
        clusters.check(settings)


def run(function: Callable[[Task], None], tasks: Sequence[Task], settings: config.Dataset, what: str, records: Path) -> None:
    """Calls `function`, importable by name, on every task; the largest go first, so that nobody waits for one at the end.

    What a task does must not depend on the others, and must bear being done twice. A task whose process is killed is tried
    once more, by itself. Whatever a task raises is raised here, and then no task goes on. `what` names the tasks in the
    progress bar; in the folder `records` an executor may keep logs.

    Raises:
        RequestError: the chosen executor cannot run here.
        PacklmError: a task's process was killed again; names that task.
    """
    check(settings)
    ordered = sorted(tasks, key=lambda task: -task.size)
    with progress(total=sum(task.size for task in tasks), desc=what, unit="B", unit_scale=True) as bar:

        def finished(task: Task) -> None:
            bar.update(task.size)

        workers = min(settings.workers or os.cpu_count() or 1, len(tasks))
        if settings.executor != "processes":
            clusters.run(function, ordered, settings, what, records, finished)
        elif workers <= 1:
            for task in ordered:
                function(task)
                finished(task)
        else:
            _here(function, ordered, workers, finished)


def _here(function: Callable[[Task], None], tasks: Sequence[Task], workers: int, finished: Callable[[Task], None]) -> None:
    """Runs the tasks in processes of this machine. Those whose process was killed come last, one at a time: so one that needs
    much memory has all there is, and one that kills its process cannot bring others under suspicion."""
    waiting, suspects = deque(tasks), deque[Task]()
    idle: list[Worker] = []
    busy: dict[Worker, Task] = {}
    try:
        while waiting or busy or suspects:
            if alone := not waiting and not busy:
                while idle:
                    idle.pop().end()
            queue, places = (suspects, 1) if alone else (waiting, workers)
            while queue and len(busy) < places:
                worker = idle.pop() if idle else Worker(function)
                busy[worker] = queue.popleft()
                worker.begin(busy[worker])
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                task = busy[worker]
                try:
                    worker.result()
                    idle.append(worker)
                    finished(task)
                except Died as how:
                    worker.end()
                    if alone:
                        raise killed_twice(task.name, how) from None
                    log.warning("%s: its process %s (out of memory?); it is tried again at the end, by itself", task.name, how)
                    suspects.append(task)
                del busy[worker]
    finally:
        for worker in [*idle, *busy]:
            worker.end()

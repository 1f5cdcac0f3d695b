"""Runs tasks through datatrove's executors: on this machine, on a Ray cluster, or on a Slurm cluster.

datatrove schedules *ranks*; rank r of R runs tasks r, r + R, r + 2R, ... one after another in a worker process (`workers`), so the rank
notices when a task's process is killed; datatrove's own pools would wait for it forever. The executor itself runs in another process,
the *driver*, which can be killed whatever it waits for; so neither datatrove nor Ray is imported here. `ranks` has the code of driver and
ranks. All processes must see the same files under the same paths.

    RECORDS/attempt-1/job                  function, tasks and settings, pickled
    RECORDS/attempt-1/tasks/000007.done    task 7 is done; `.error`: its exception, pickled
    RECORDS/attempt-1/ranks/00002          heartbeat of rank 2: changes as long as it is alive
    RECORDS/attempt-1/stop                 ranks exit when it appears, or when the folder disappears
    RECORDS/attempt-1/count                number of ranks; with Slurm, `slurm` has the job's id
    RECORDS/attempt-1/driver.log           output of datatrove, Ray and sbatch; datatrove/ has its own logs

Each call of `run` is an attempt in a folder of its own, because datatrove's completion markers do not depend on the configuration.
"""

import importlib.util
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from packlm import config
from packlm.base import escape, files
from packlm.base.errors import PacklmError, RequestError, did_you_mean

from .ranks import ClusterJob
from .workers import ExecutorTask

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=ExecutorTask)

SLURM = ("partition", "time", "mem_per_cpu_gb", "qos", "account", "constraint", "exclude", "nodelist", "reservation")
"""Options that `dataset.slurm` may have; the first two are required."""
SILENT_SECONDS = 120.0
"""A rank whose heartbeat stops for this long is lost; longer than a network file system takes to show a change."""
LATE_SECONDS = 30.0
"""How long files written on other machines may take to become visible on this one."""
_TIME = r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}"
_DRIVER = f"import sys; sys.path[:] = sys.argv[2:]; from {ClusterJob.__module__} import run_driver; run_driver(sys.argv[1])"


def check(settings: config.Dataset) -> None:
    """Raises `RequestError` if the executor's packages or commands are missing, or the options for Slurm are wrong."""
    packages = ("datatrove", "ray") if settings.executor == "ray" else ("datatrove",)
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise RequestError(
            f"dataset.executor = {settings.executor}: {' and '.join(missing)} cannot be imported; pip install 'packlm[cluster]'"
        )
    if settings.executor == "slurm":
        if errors := slurm_errors(settings.slurm):
            raise RequestError(escape.lines("wrong configuration:", *(f"  {line}" for line in errors)))
        if missing := [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]:
            raise RequestError(f"dataset.executor = slurm: {', '.join(missing)}: command not found; run this on a login node")


def slurm_errors(options: dict[str, str | int]) -> list[str]:
    """A line for each error in `dataset.slurm`."""
    lines = []
    for key in options:
        if key not in SLURM:
            lines.append(f"dataset.slurm.{key}: unknown option; {did_you_mean(key, SLURM, 'known: ' + ', '.join(SLURM))}")
    lines += [f"dataset.slurm.{key}: missing; Slurm requires it" for key in SLURM[:2] if key not in options]
    for key, pattern, form in (
        ("time", _TIME, "minutes, H:MM:SS or D-HH:MM:SS"),
        ("mem_per_cpu_gb", r"[1-9]\d*", "an integer number of gigabytes"),
    ):
        if key in options and not re.fullmatch(pattern, str(options[key])):
            lines.append(f"dataset.slurm.{key}: must be {form}, got {options[key]!r}")
    for key, value in options.items():
        if key in SLURM and not re.fullmatch(r"[^\s#]+", str(value)):
            lines.append(f"dataset.slurm.{key}: must be one word, got {value!r}")
    return lines


def run(
    function: Callable[[Task], None],
    tasks: Sequence[Task],
    settings: config.Dataset,
    label: str,
    records: Path,
    on_done: Callable[[Task], object],
) -> None:
    """Calls `function` on every task through datatrove, and `on_done` on each completed task. See `TaskRunner.run`.

    Raises:
        PacklmError: the ranks exited or were lost before all tasks were done; names the tasks and the log to read.
    """
    if not tasks:
        return
    folder = new_attempt(records)
    with files.atomic(folder / "job") as stream:
        stream.write(pickle.dumps(ClusterJob(function, tasks, settings, os.getcwd())))
    log.info("%s: %d tasks through datatrove (%s); log: %s", label, len(tasks), settings.executor, folder / "driver.log")
    remaining = dict(enumerate(tasks))
    monitor = _RankMonitor(folder)
    with _driver(folder) as driver:
        while remaining:
            driver_exited = driver.poll() is not None
            take_completed(folder, remaining, on_done)
            if remaining and driver_exited:
                _wait_for_late_files(folder, remaining, on_done, settings)
                break
            if remaining and settings.executor != "slurm" and (rank := monitor.lost_rank()) is not None:  # Slurm handles lost machines
                num_ranks = int((folder / "count").read_text())
                lost = ", ".join(task.name for index, task in remaining.items() if index % num_ranks == rank)
                raise PacklmError(
                    f"rank {rank}: no heartbeat for {SILENT_SECONDS:.0f} s: it was killed, or its machine is down; "
                    f"not done: {lost}; see {folder}; resume by running the same command again"
                )
            if remaining:
                time.sleep(0.2)
    if remaining:
        raise PacklmError(_early_exit_message(folder, remaining))


def new_attempt(records: Path) -> Path:
    """Creates the folder of a new attempt, and stops ranks of earlier attempts that outlived their driver."""
    number = 1
    while (folder := records / f"attempt-{number}").exists():
        (folder / "stop").touch()
        number += 1
    for name in ("tasks", "ranks", "datatrove"):
        (folder / name).mkdir(parents=True)
    return folder.resolve()


def take_completed(folder: Path, remaining: dict[int, Task], on_done: Callable[[Task], object]) -> None:
    """Removes the completed tasks from `remaining`; raises the exception of a failed one."""
    for path in sorted((folder / "tasks").glob("*.*")):
        index = int(path.stem) if not path.name.startswith(".") else -1
        if index in remaining:
            if path.suffix == ".error":
                raise pickle.loads(path.read_bytes())
            on_done(remaining.pop(index))


def _wait_for_late_files(folder: Path, remaining: dict[int, Task], on_done: Callable[[Task], object], settings: config.Dataset) -> None:
    deadline = time.monotonic() + (0 if settings.executor == "datatrove" else LATE_SECONDS)
    while remaining and time.monotonic() < deadline:
        time.sleep(0.5)
        take_completed(folder, remaining, on_done)


class _RankMonitor:
    """Finds out which ranks are alive by whether their heartbeat files change; compares no clocks of different machines."""

    def __init__(self, folder: Path):
        self.folder = folder / "ranks"
        self.last_seen: dict[str, tuple[int, float]] = {}
        """Heartbeat file -> its last count, and when that was first seen."""

    def lost_rank(self) -> int | None:
        """A rank that started, has not exited, and whose heartbeat has stopped."""
        now = time.monotonic()
        for path in sorted(self.folder.glob("[0-9]*")):
            beat, previous = int(path.read_text() or 0), self.last_seen.get(path.name)
            if previous is None or previous[0] != beat:
                self.last_seen[path.name] = (beat, now)
            elif beat >= 0 and now - previous[1] > SILENT_SECONDS:
                return int(path.name)
        return None


def _early_exit_message(folder: Path, remaining: dict[int, Task]) -> str:
    """The message where the driver has exited before all tasks were done: names the tasks, and quotes the end of the log."""
    names = ", ".join(task.name for task in list(remaining.values())[:10])
    if len(remaining) > 10:
        names += f" and {len(remaining) - 10:,} more"
    logs = [folder / "driver.log"]
    if (folder / "slurm").exists():
        rank = min(index % int((folder / "count").read_text()) for index in remaining)
        logs = [*(folder / "datatrove").glob(f"slurm_logs/*_{rank}.out"), *logs]
    lines = [line for line in logs[0].read_text(errors="replace").splitlines() if line.strip()] if logs[0].exists() else []
    reason = f"datatrove exited early; not done: {names}; resume by running the same command again; {logs[0]} ends with:"
    return escape.lines(reason, *(f"  {line}" for line in lines[-3:]))


@contextmanager
def _driver(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs the driver process for the block, then ends it and its ranks."""
    path = [str(Path(entry).resolve()) for entry in sys.path]
    with open(folder / "driver.log", "wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(folder), *path],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,
        )
    assert driver.stdin is not None
    try:
        yield driver
        with suppress(subprocess.TimeoutExpired):  # the driver cleans up first
            driver.wait(LATE_SECONDS)
    finally:
        with suppress(OSError):
            (folder / "stop").touch()
        driver.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            driver.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # remaining processes of its pools
        driver.wait()

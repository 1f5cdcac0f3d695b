"""The same tasks through datatrove's executors: on this machine, on a Ray cluster, on a Slurm cluster.

datatrove places *ranks*; rank r of R does tasks r, r + R, r + 2R, ... one after another, each in a worker process of its own
(`preprocess.executors.workers`), so that a task's killed process is seen by the rank, which datatrove's own pools would wait for without
end. The executor itself runs in another process, the *driver*, which can be ended whatever it waits for; so neither datatrove
nor Ray is ever imported here. What driver and ranks do is in `preprocess.executors.ranks`; all of them must see the same files under the
same paths.

    RECORDS/attempt-1/job                  what to run: function, tasks, settings
    RECORDS/attempt-1/tasks/000007.done    task 7 is done; `.error`: what it raised
    RECORDS/attempt-1/ranks/00002          changes as long as rank 2 is alive
    RECORDS/attempt-1/stop                 ranks end when it appears, or when the folder disappears
    RECORDS/attempt-1/count                how many ranks there are; with Slurm, `slurm` has the job's number
    RECORDS/attempt-1/driver.log           what datatrove, Ray and sbatch had to say; also datatrove/, its own logs

Every call is an attempt with a folder of its own: datatrove's completion markers know nothing of configurations, so no attempt
sees those of another.
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
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError, did_you_mean

from .ranks import ClusterJob
from .workers import ExecutorTask

log = logging.getLogger("packlm")

Task = TypeVar("Task", bound=ExecutorTask)

SLURM = ("partition", "time", "mem_per_cpu_gb", "qos", "account", "constraint", "exclude", "nodelist", "reservation")
"""What `dataset.slurm` may say; the first two it must."""
SILENT_SECONDS = 120.0
"""A rank that has begun and is not heard for so long is lost; more than a network file system takes to show a change."""
LATE_SECONDS = 30.0
"""How long files written on other machines may take to be seen on this one."""
_TIME = r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}"
_DRIVE = f"import sys; sys.path[:] = sys.argv[2:]; from {ClusterJob.__module__} import drive; drive(sys.argv[1])"


def check(settings: config.Dataset) -> None:
    """`RequestError` if the chosen executor's packages or commands are missing here, or Slurm's options are wrong."""
    needed = ("datatrove", "ray") if settings.executor == "ray" else ("datatrove",)
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        names = " and ".join(missing)
        raise RequestError(f"dataset.executor = {settings.executor}: {names} cannot be imported; pip install 'packlm[cluster]'")
    if settings.executor == "slurm":
        if complaints := _complaints(settings.slurm):
            raise RequestError("\n".join(["wrong configuration:", *(f"  {line}" for line in complaints)]))
        if missing := [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]:
            raise RequestError(f"dataset.executor = slurm: no command {', '.join(missing)} here; start it on a node that submits jobs")


def _complaints(options: dict[str, str | int]) -> list[str]:
    """What is wrong with `dataset.slurm`."""
    lines = []
    for key in options:
        if key not in SLURM:
            hint = did_you_mean(key, SLURM, f"there are {', '.join(SLURM)}")
            lines.append(f"dataset.slurm.{key}: there is no such option; {hint}")
    lines += [f"dataset.slurm.{key}: missing; Slurm must be told" for key in SLURM[:2] if key not in options]
    for key, pattern, form in (
        ("time", _TIME, "minutes, H:MM:SS or D-HH:MM:SS"),
        ("mem_per_cpu_gb", r"[1-9]\d*", "a whole number of gigabytes"),
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
    what: str,
    records: Path,
    finished: Callable[[Task], object],
) -> None:
    """Calls `function` on every task through datatrove; `finished` is told of each as it ends. See `executors.Crew.run`.

    Raises:
        PacklmError: the ranks ended or were lost before all was done; names tasks, and the log to read.
    """
    if not tasks:
        return
    folder = _attempt(records)
    with files.atomic(folder / "job") as stream:
        stream.write(pickle.dumps(ClusterJob(function, tasks, settings, os.getcwd())))
    log.info("%s: %d tasks through datatrove (%s); its log is %s", what, len(tasks), settings.executor, folder / "driver.log")
    left = dict(enumerate(tasks))
    pulse = _RankMonitor(folder)
    with _driver(folder) as driver:
        while left:
            over = driver.poll() is not None
            _collect(folder, left, finished)
            if left and over:
                _wait_for_late_ones(folder, left, finished, settings)
                break
            if left and settings.executor != "slurm" and (rank := pulse.lost()) is not None:  # Slurm itself sees to lost machines
                ranks = int((folder / "count").read_text())
                lost = ", ".join(task.name for index, task in left.items() if index % ranks == rank)
                raise PacklmError(
                    f"rank {rank} has not been heard of for {SILENT_SECONDS:.0f} s: it was killed, or its machine is gone; "
                    f"not done: {lost}; see {folder}, and run it again to go on"
                )
            if left:
                time.sleep(0.2)
    if left:
        raise PacklmError(_ended_early(folder, left))


def _attempt(records: Path) -> Path:
    """A new folder. Ranks of earlier attempts, which may have outlived their driver, are told to end."""
    number = 1
    while (folder := records / f"attempt-{number}").exists():
        (folder / "stop").touch()
        number += 1
    for name in ("tasks", "ranks", "datatrove"):
        (folder / name).mkdir(parents=True)
    return folder.resolve()


def _collect(folder: Path, left: dict[int, Task], finished: Callable[[Task], object]) -> None:
    """Takes the tasks that are done out of `left`; raises what one of them raised."""
    for path in sorted((folder / "tasks").glob("*.*")):
        index = int(path.stem) if not path.name.startswith(".") else -1
        if index in left:
            if path.suffix == ".error":
                raise pickle.loads(path.read_bytes())
            finished(left.pop(index))


def _wait_for_late_ones(folder: Path, left: dict[int, Task], finished: Callable[[Task], object], settings: config.Dataset) -> None:
    deadline = time.monotonic() + (0 if settings.executor == "datatrove" else LATE_SECONDS)
    while left and time.monotonic() < deadline:
        time.sleep(0.5)
        _collect(folder, left, finished)


class _RankMonitor:
    """Which ranks are alive, by whether their files change; no clocks of other machines are compared."""

    def __init__(self, folder: Path):
        self.folder = folder / "ranks"
        self.seen: dict[str, tuple[int, float]] = {}

    def lost(self) -> int | None:
        """A rank that began, has not ended, and has been silent too long."""
        now = time.monotonic()
        for path in sorted(self.folder.glob("[0-9]*")):
            text, before = path.read_text(), self.seen.get(path.name)
            beat = int(text or 0)
            if before is None or before[0] != beat:
                self.seen[path.name] = (beat, now)
            elif beat >= 0 and now - before[1] > SILENT_SECONDS:
                return int(path.name)
        return None


def _ended_early(folder: Path, left: dict[int, Task]) -> str:
    """The message for tasks without a result though the driver is through: what is missing, and the end of the log that tells why."""
    names = ", ".join(task.name for task in list(left.values())[:10]) + (f" and {len(left) - 10:,} more" if len(left) > 10 else "")
    told = [folder / "driver.log"]
    if (folder / "slurm").exists():
        rank = min(index % int((folder / "count").read_text()) for index in left)
        told = [*(folder / "datatrove").glob(f"slurm_logs/*_{rank}.out"), *told]
    lines = [line for line in told[0].read_text(errors="replace").splitlines() if line.strip()] if told[0].exists() else []
    last = "".join(f"\n  {line}" for line in lines[-3:])
    return f"datatrove ended before all was done; not done: {names}; run it again to go on; {told[0]} ends with:{last}"


@contextmanager
def _driver(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The driver process, for as long as the block runs; then it and its ranks are ended."""
    path = [str(Path(entry).resolve()) for entry in sys.path]
    with open(folder / "driver.log", "wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVE, str(folder), *path],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,
        )
    assert driver.stdin is not None
    try:
        yield driver
        with suppress(subprocess.TimeoutExpired):  # it has its own things to put away
            driver.wait(LATE_SECONDS)
    finally:
        with suppress(OSError):
            (folder / "stop").touch()
        driver.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            driver.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # whatever is left of its pools
        driver.wait()

"""What runs for `preprocess.executors.clusters` in other processes, maybe on other machines: the driver, and the ranks that it places."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packlm import config
from packlm.base import files

from .workers import Worker, WorkerDied, killed_twice

BEAT_SECONDS = 1.0
"""A rank shows that it is alive, and looks whether it is still wanted, so often."""
MOST_RANKS = 1000
"""The elements of an array job that Slurm allows unless its administrator says otherwise (MaxArraySize = 1001)."""
POLL_SECONDS = 2.0
"""Slurm is asked for the state of the job so often."""


@dataclass(frozen=True)
class ClusterJob:
    """What the driver and its ranks are to run."""

    function: Callable[[Any], None]
    tasks: Sequence[Any]
    settings: config.Dataset
    folder: str
    """Whoever asked is here, and relative paths are relative to it."""


@dataclass(frozen=True)
class RankStep:
    """The one step of the datatrove pipeline: does the tasks of a rank, and never raises what they raise."""

    folder: Path
    """Of the attempt."""

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        do(self.folder, rank, world_size)


def do(folder: Path, rank: int, ranks: int) -> None:
    """Does the tasks of one of `ranks` ranks that are not done yet, and leaves `tasks/INDEX.done` or `tasks/INDEX.error` of each.

    A task whose process dies is tried once more. After any error, and when nobody waits for it any more, the rank ends.
    """
    job: ClusterJob = pickle.loads((folder / "job").read_bytes())
    beat, starter, beats = folder / "ranks" / f"{rank:05d}", os.getppid(), 0
    worker: Worker | None = None
    failed: BaseException | None = None
    try:
        for index in range(rank, len(job.tasks), ranks):
            done = folder / "tasks" / f"{index:06d}.done"
            for last in (False, True):
                if done.exists():  # by this rank before datatrove or Slurm had to start it again
                    break
                worker = worker or Worker(job.function, job.folder)
                worker.begin(job.function, job.tasks[index])
                while True:
                    beat.write_text(str(beats := beats + 1))
                    if (folder / "stop").exists() or not (folder / "job").exists() or os.getppid() != starter:
                        return
                    if worker.connection.poll(BEAT_SECONDS):
                        break
                try:
                    worker.result()
                    _mark(done, b"")
                except WorkerDied as how:
                    worker.end()
                    worker = None
                    failed = killed_twice(job.tasks[index].name, how) if last else None
                except BaseException as error:
                    failed = error
                if failed is not None:
                    _mark(done.with_suffix(".error"), pickle.dumps(failed))
                    return
    finally:
        if worker is not None:
            worker.end()
        if beat.parent.exists():
            beat.write_text("-1")


def _mark(path: Path, content: bytes) -> None:
    with files.atomic(path) as stream:
        stream.write(content)


def drive(folder: str) -> None:
    """What the driver process does: runs datatrove's executor until all ranks are through, or until its standard input ends."""
    attempt = Path(folder)
    job: ClusterJob = pickle.loads((attempt / "job").read_bytes())
    threading.Thread(target=_until_unwanted, args=(attempt,), daemon=True).start()
    {"datatrove": _local, "ray": _ray, "slurm": _slurm}[job.settings.executor](attempt, job)


def _until_unwanted(attempt: Path) -> None:
    """Ends the driver when the process that started it has gone, or has closed the pipe."""
    os.read(0, 1)  # not sys.stdin: a process forked meanwhile would find it locked
    if (submitted := attempt / "slurm").exists():
        subprocess.run(["scancel", submitted.read_text()], check=False)
    os.killpg(0, signal.SIGKILL)  # pools and a Ray of its own too: they would not all notice


def _ranks(attempt: Path, job: ClusterJob, wanted: int) -> int:
    """Settles how many ranks there are, and leaves the number for messages."""
    ranks = min(wanted, len(job.tasks), MOST_RANKS)
    (attempt / "count").write_text(str(ranks))
    return ranks


def _local(attempt: Path, job: ClusterJob) -> None:
    from datatrove.executor import LocalPipelineExecutor

    workers = job.settings.workers or os.cpu_count() or 1
    ranks = _ranks(attempt, job, 4 * workers)
    LocalPipelineExecutor([RankStep(attempt)], tasks=ranks, workers=min(workers, ranks), logging_dir=str(attempt / "datatrove")).run()


def _ray(attempt: Path, job: ClusterJob) -> None:
    """On the cluster that RAY_ADDRESS names or that runs on this machine; else on one of its own, which ends with it."""
    import ray
    from datatrove.executor.ray import RayPipelineExecutor

    options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}}
    try:
        ray.init("auto", **options)
    except ConnectionError:
        if "RAY_ADDRESS" in os.environ:
            raise
        ray.init("local", num_cpus=job.settings.workers or os.cpu_count(), include_dashboard=False, **options)
    # A rank costs seconds here (an actor, an environment), so there is one a worker. Memory is not reserved: where there is less
    # than datatrove's default, it would be waited for without end.
    ranks = _ranks(attempt, job, job.settings.workers or int(ray.cluster_resources()["CPU"]))
    RayPipelineExecutor([RankStep(attempt)], tasks=ranks, workers=ranks, logging_dir=str(attempt / "datatrove"), mem_per_cpu_gb=0).run()
    ray.shutdown()


def _slurm(attempt: Path, job: ClusterJob) -> None:
    """Submits one array job, an element a rank, and stays until Slurm has no more of it."""
    from datatrove.executor import SlurmPipelineExecutor

    options = {key: str(value) for key, value in job.settings.slurm.items()}
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    executor = SlurmPipelineExecutor(
        [RankStep(attempt)],
        tasks=_ranks(attempt, job, 4 * job.settings.workers if job.settings.workers else MOST_RANKS),
        workers=job.settings.workers or -1,
        time=options.pop("time"),
        partition=options.pop("partition"),
        mem_per_cpu_gb=int(options.pop("mem_per_cpu_gb", 2)),
        qos=options.pop("qos", ""),
        sbatch_args=options,
        job_name="packlm",
        logging_dir=str(attempt / "datatrove"),
        requeue_signals=None,
        with_srun=False,
    )
    executor.launch_merge_stats = _nothing
    try:
        executor.launch_job()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} ended with exit status {error.returncode}")
    (attempt / "slurm").write_text(executor.job_id)
    while _queued(executor.job_id):
        time.sleep(POLL_SECONDS)


def _nothing() -> None:
    """In the place of a second job that adds up datatrove's statistics, and waits for ever where the first one failed."""


def _queued(identity: str) -> bool:
    """Whether Slurm has the job, waiting or running. A controller that does not answer has not forgotten it."""
    asked = subprocess.run(["squeue", "--noheader", "--jobs", identity], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())

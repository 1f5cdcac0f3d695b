"""The processes that `clusters` starts, maybe on other machines: the driver, and the ranks that it schedules."""

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
"""Interval at which a rank writes its heartbeat and checks whether to stop."""
MAX_RANKS = 1000
"""Slurm's default limit for the elements of an array job (MaxArraySize = 1001)."""
POLL_SECONDS = 2.0
"""Interval at which Slurm is asked for the state of the job."""


@dataclass(frozen=True)
class ClusterJob:
    """The tasks of one step, for the driver and its ranks."""

    function: Callable[[Any], None]
    tasks: Sequence[Any]
    settings: config.Dataset
    folder: str
    """Working directory of the process that started the job, for relative paths."""


@dataclass(frozen=True)
class RankStep:
    """The only step of the datatrove pipeline: runs the tasks of a rank. Their exceptions go into files; datatrove sees none."""

    folder: Path
    """The folder of the attempt."""

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        run_rank(self.folder, rank, world_size)


def run_rank(folder: Path, rank: int, num_ranks: int) -> None:
    """Runs the tasks of a rank that are not done yet; writes `tasks/INDEX.done` or `tasks/INDEX.error` for each.

    A task whose process dies is retried once. The rank exits after an error, and when the attempt is over.
    """
    job: ClusterJob = pickle.loads((folder / "job").read_bytes())
    heartbeat, parent, beats = folder / "ranks" / f"{rank:05d}", os.getppid(), 0
    worker: Worker | None = None
    error: BaseException | None = None
    try:
        for index in range(rank, len(job.tasks), num_ranks):
            done = folder / "tasks" / f"{index:06d}.done"
            for is_retry in (False, True):
                if done.exists():  # or was done before datatrove or Slurm restarted this rank
                    break
                worker = worker or Worker(job.folder)
                worker.begin(job.function, job.tasks[index])
                while True:
                    heartbeat.write_text(str(beats := beats + 1))
                    if (folder / "stop").exists() or not (folder / "job").exists() or os.getppid() != parent:
                        return
                    if worker.connection.poll(BEAT_SECONDS):
                        break
                try:
                    worker.result()
                    _write(done, b"")
                except WorkerDied as death:
                    worker.end()
                    worker = None
                    error = killed_twice(job.tasks[index].name, death) if is_retry else None
                except BaseException as raised:
                    error = raised
                if error is not None:
                    _write(done.with_suffix(".error"), pickle.dumps(error))
                    return
    finally:
        if worker is not None:
            worker.end()
        if heartbeat.parent.exists():
            heartbeat.write_text("-1")


def _write(path: Path, content: bytes) -> None:
    with files.atomic(path) as stream:
        stream.write(content)


def run_driver(folder: str) -> None:
    """The main function of the driver process: runs datatrove's executor until all ranks have exited, or standard input is closed."""
    attempt = Path(folder)
    job: ClusterJob = pickle.loads((attempt / "job").read_bytes())
    threading.Thread(target=_exit_with_parent, args=(attempt,), daemon=True).start()
    {"datatrove": _run_local, "ray": _run_ray, "slurm": _run_slurm}[job.settings.executor](attempt, job)


def _exit_with_parent(attempt: Path) -> None:
    """Waits until the parent process exits or closes the pipe, then kills the driver and its process group."""
    os.read(0, 1)  # not sys.stdin: a process forked meanwhile would find it locked
    if (job_id := attempt / "slurm").exists():
        subprocess.run(["scancel", job_id.read_text()], check=False)
    os.killpg(0, signal.SIGKILL)  # with pools and a local Ray, not all of which would notice


def _num_ranks(attempt: Path, job: ClusterJob, limit: int) -> int:
    """The number of ranks, at most `limit`; also written to `count`, for messages."""
    num_ranks = min(limit, len(job.tasks), MAX_RANKS)
    (attempt / "count").write_text(str(num_ranks))
    return num_ranks


def _run_local(attempt: Path, job: ClusterJob) -> None:
    from datatrove.executor import LocalPipelineExecutor

    workers = job.settings.workers or os.cpu_count() or 1
    num_ranks = _num_ranks(attempt, job, 4 * workers)
    logs = str(attempt / "datatrove")
    LocalPipelineExecutor([RankStep(attempt)], tasks=num_ranks, workers=min(workers, num_ranks), logging_dir=logs).run()


def _run_ray(attempt: Path, job: ClusterJob) -> None:
    """Runs on the cluster at RAY_ADDRESS or on this machine; if there is none, starts a local one that ends with the driver."""
    import ray
    from datatrove.executor.ray import RayPipelineExecutor

    options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}}
    try:
        ray.init("auto", **options)
    except ConnectionError:
        if "RAY_ADDRESS" in os.environ:
            raise
        ray.init("local", num_cpus=job.settings.workers or os.cpu_count(), include_dashboard=False, **options)
    # One rank per worker, since starting a rank takes seconds (an actor, an environment). No memory is reserved: with less than
    # datatrove's default available, Ray would wait forever.
    num_ranks = _num_ranks(attempt, job, job.settings.workers or int(ray.cluster_resources()["CPU"]))
    logs = str(attempt / "datatrove")
    RayPipelineExecutor([RankStep(attempt)], tasks=num_ranks, workers=num_ranks, logging_dir=logs, mem_per_cpu_gb=0).run()
    ray.shutdown()


def _run_slurm(attempt: Path, job: ClusterJob) -> None:
    """Submits one array job with an element per rank, and waits until Slurm no longer lists it."""
    from datatrove.executor import SlurmPipelineExecutor

    options = {key: str(value) for key, value in job.settings.slurm.items()}
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    executor = SlurmPipelineExecutor(
        [RankStep(attempt)],
        tasks=_num_ranks(attempt, job, 4 * job.settings.workers if job.settings.workers else MAX_RANKS),
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
    executor.launch_merge_stats = lambda: None  # a second job, for statistics, which would wait forever if the first failed
    try:
        executor.launch_job()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} exited with status {error.returncode}")
    (attempt / "slurm").write_text(executor.job_id)
    while _queued(executor.job_id):
        time.sleep(POLL_SECONDS)


def _queued(job_id: str) -> bool:
    """Whether Slurm lists the job as pending or running; also true while its controller does not answer."""
    query = subprocess.run(["squeue", "--noheader", "--jobs", job_id], capture_output=True, text=True, check=False)
    if query.returncode != 0:
        return "Invalid job id" not in query.stderr
    return bool(query.stdout.strip())

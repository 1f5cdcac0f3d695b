"""Tasks through datatrove: same files and exceptions; killed ranks are noticed; what cannot run is refused beforehand."""

import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from packlm import config
from packlm.base.errors import PacklmError, RequestError
from preprocess.executors import clusters, ranks
from preprocess.executors.runner import TaskRunner
from tests.preprocess.executors.tasks import Task, alive, tried, until, work

ROOT = Path(__file__).resolve().parents[3]
SLURM = {"partition": "main", "time": "10", "mem_per_cpu_gb": 1}


def run(tasks: list[Task], folder: Path, executor: str = "datatrove", workers: int = 2, **slurm: str | int) -> None:
    with TaskRunner(config.Dataset(executor=executor, workers=workers, slurm=slurm)) as runner:
        runner.run(work, tasks, "tasks", folder / "records")


def jobs(folder: Path, **of_two: object) -> list[Task]:
    folder.mkdir(exist_ok=True)
    return [Task(str(size), folder, size=size, **(of_two if size == 2 else {})) for size in range(1, 4)]  # type: ignore[arg-type]


def made(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and not path.suffix}


@pytest.mark.parametrize("executor", ["datatrove", "slurm"])
def test_the_same_files_come_out_though_a_process_is_killed(tmp_path, executor, slurm):
    run(jobs(tmp_path / "there", deaths=1), tmp_path / "there", executor, **SLURM)
    TaskRunner(config.Dataset(workers=1)).run(work, jobs(tmp_path / "here"), "tasks", tmp_path)
    assert made(tmp_path / "there") == made(tmp_path / "here") and len(made(tmp_path / "here")) == 3
    assert [len(tried(job)) for job in jobs(tmp_path / "there")] == [1, 2, 1]


@pytest.mark.long
def test_ray_makes_the_same_files_though_a_process_is_killed(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run(jobs(tmp_path, deaths=1), tmp_path, "ray")
    assert made(tmp_path) == {str(size): str(size) * size for size in range(1, 4)}
    assert [len(tried(job)) for job in jobs(tmp_path)] == [1, 2, 1]


def test_exceptions_arrive_and_do_not_influence_the_next_attempt(tmp_path):
    with pytest.raises(RequestError, match=r"^2 is wrong$"):
        run(jobs(tmp_path, raises="request"), tmp_path)
    missing = [job for job in jobs(tmp_path) if not (job.folder / job.name).exists()]
    before = {job.name: len(tried(job)) for job in jobs(tmp_path)}
    run(missing, tmp_path)
    again = {job.name: len(tried(job)) - before[job.name] for job in jobs(tmp_path)}
    assert again == {job.name: int(job in missing) for job in jobs(tmp_path)}
    assert made(tmp_path) == {str(size): str(size) * size for size in range(1, 4)}


def test_a_killed_rank_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "SILENT_SECONDS", 3.0)
    killed, sleep = [], clusters.time.sleep

    def kill_the_rank_of_task_2(seconds):
        sleep(seconds)
        if not killed and (worker := tried(jobs(tmp_path)[1])) and alive(worker[0]):
            killed.append(int(Path(f"/proc/{worker[0]}/stat").read_text().rpartition(")")[2].split()[1]))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(clusters.time, "sleep", kill_the_rank_of_task_2)
    with pytest.raises(PacklmError, match=r"^rank 1: no heartbeat for .*not done: 2; "):
        run(jobs(tmp_path, seconds=60), tmp_path)
    until(lambda: not alive(tried(jobs(tmp_path)[1])[0]), seconds=5)
    assert killed and not (tmp_path / "2").exists()


def test_everything_ends_with_the_process_that_started_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; from tests.preprocess.executors import test_clusters as t; "
        "f = Path(sys.argv[1]); t.run([t.Task(n, f, seconds=60) for n in 'ab'], f)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
    until(lambda: all((tmp_path / f"{name}.running").exists() for name in "ab"))
    pids = [pid for name in "ab" for pid in tried(Task(name, tmp_path))]
    parents = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids]
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(pid) for pid in [*pids, *parents]), seconds=5)


def test_a_refused_or_lost_slurm_job_is_an_error_that_shows_the_log(tmp_path, monkeypatch, slurm):
    monkeypatch.setattr(clusters, "LATE_SECONDS", 0.5)
    with pytest.raises(PacklmError, match=r"not done: 3, 2, 1; (?s:.*)driver\.log ends with:(?s:.*)invalid partition nowhere"):
        run(jobs(tmp_path), tmp_path, "slurm", **{**SLURM, "partition": "nowhere"})
    with pytest.raises(PacklmError, match=r"not done: 3, 2, 1; (?s:.*)slurm_logs/77_0\.out ends with:(?s:.*)TIME LIMIT"):
        run(jobs(tmp_path), tmp_path, "slurm", **{**SLURM, "time": "0"})


def test_ranks_of_an_earlier_attempt_are_stopped(tmp_path):
    first = clusters.new_attempt(tmp_path)
    second = clusters.new_attempt(tmp_path)
    assert (first / "stop").exists() and not (second / "stop").exists() and first != second


def test_a_rank_does_what_is_not_done_and_stops_when_told(tmp_path):
    attempt = clusters.new_attempt(tmp_path / "records")
    (attempt / "job").write_bytes(pickle.dumps(ranks.ClusterJob(work, jobs(tmp_path), config.Dataset(), str(tmp_path))))
    (attempt / "tasks" / "000002.done").touch()
    ranks.run_rank(attempt, 0, 2)
    assert made(tmp_path).keys() == {"1"}
    (attempt / "stop").touch()
    ranks.run_rank(attempt, 1, 2)
    assert made(tmp_path).keys() == {"1"}
    assert {path.name for path in (attempt / "tasks").iterdir()} == {"000000.done", "000002.done"}


def test_a_rank_writes_the_error_of_a_task_that_is_killed_twice_and_stops(tmp_path):
    attempt = clusters.new_attempt(tmp_path / "records")
    (attempt / "job").write_bytes(pickle.dumps(ranks.ClusterJob(work, jobs(tmp_path, deaths=2), config.Dataset(), str(tmp_path))))
    ranks.run_rank(attempt, 0, 1)
    assert [len(tried(job)) for job in jobs(tmp_path)] == [1, 2, 0]
    with pytest.raises(PacklmError, match=r"^2: its process died twice .*SIGKILL"):
        clusters.take_completed(attempt, dict(enumerate(jobs(tmp_path))), lambda task: None)


def test_missing_packages_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"ray: datatrove and ray cannot be imported; pip install 'packlm\[cluster\]'"):
        run(jobs(tmp_path), tmp_path, "ray")
    assert not (tmp_path / "records").exists()


def test_all_wrong_options_of_slurm_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(RequestError) as caught:
        run(jobs(tmp_path), tmp_path, "slurm", tme="10", mem_per_cpu_gb="4G", qos="a\nb")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        "dataset.slurm.tme",
        "dataset.slurm.partition",
        "dataset.slurm.time",
        "dataset.slurm.mem_per_cpu_gb",
        "dataset.slurm.qos",
    ]
    assert "did you mean time?" in lines[0]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="sbatch, squeue, scancel: command not found"):
        run(jobs(tmp_path), tmp_path, "slurm", **SLURM)


@pytest.mark.parametrize("time", ["90", "1:30", "12:00:00", "2-0", "1-12:30", "1-00:00:00"])
def test_all_formats_of_a_time_limit(time):
    assert not clusters.slurm_errors({"partition": "main", "time": time})


def test_cluster_libraries_are_not_imported_for_processes():
    program = "import sys; from preprocess.executors import clusters, ranks, runner; print({'ray', 'datatrove', 'loguru'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch) -> None:
    """Fake commands of Slurm for one job, whose elements they run one after another."""
    folder = tmp_path_factory.mktemp("slurm")
    commands = {
        "sbatch": """for script; do :; done
            grep -q partition=nowhere $script && { echo invalid partition nowhere >&2; exit 1; }
            last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' $script); log=$(sed -n 's/.*--output=\\(.*\\)%A_%a.out/\\1/p' $script)
            if grep -q -- --time=0$ $script; then echo CANCELLED DUE TO TIME LIMIT > ${log}77_0.out; echo job 77; exit; fi
            cp $script HERE/script; touch HERE/queued
            (for i in $(seq 0 $last); do
                SLURM_ARRAY_TASK_ID=$i SLURM_NODELIST=here RUN_OFFSET=0 bash HERE/script > ${log}77_$i.out 2>&1
            done; rm HERE/queued) > /dev/null 2>&1 &
            echo job 77""",
        "squeue": "if [ -e HERE/queued ]; then echo 77; else echo slurm_load_jobs error: Invalid job id specified >&2; exit 1; fi",
        "scancel": "rm -f HERE/queued",
        "scontrol": "echo here",
    }
    for name, lines in commands.items():
        path = folder / name
        path.write_text("#!/bin/bash\n" + lines.replace("HERE", str(folder)) + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

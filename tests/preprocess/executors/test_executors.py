"""Tasks in worker processes: killed ones are retried and named, exceptions arrive, nothing hangs, no process stays."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from packlm import config
from packlm.base import errors
from packlm.base.errors import PacklmError, RequestError
from preprocess.executors import runner
from preprocess.executors.runner import Task, TaskRunner
from tests.preprocess.executors.tasks import Task as Job
from tests.preprocess.executors.tasks import alive, cores, imports, tried, until, work

ROOT = Path(__file__).resolve().parents[3]


def run(function, tasks: list[Task], folder: Path, workers: int = 2) -> None:
    with TaskRunner(config.Dataset(workers=workers)) as task_runner:
        task_runner.run(function, tasks, "tasks", folder / "records")


def test_a_killed_process_costs_only_its_own_task_a_retry(tmp_path, caplog):
    jobs = [Job("a", tmp_path, seconds=0.5), Job("b", tmp_path, deaths=1), Job("c", tmp_path), Job("d", tmp_path)]
    with caplog.at_level(logging.WARNING, "packlm"):
        run(work, jobs, tmp_path)
    assert [(tmp_path / name).read_text() for name in "abcd"] == list("abcd")
    assert {job.name: len(tried(job)) for job in jobs} == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert "b: its process was killed by SIGKILL" in caplog.text


def test_the_task_that_kills_its_process_twice_is_named_and_no_other(tmp_path):
    jobs = [Job("innocent", tmp_path, seconds=0.5), Job("guilty", tmp_path, deaths=2), Job("later", tmp_path)]
    jobs.append(Job("unlucky", tmp_path, deaths=1, size=2))
    with pytest.raises(PacklmError, match=r"^guilty: its process died twice") as caught:
        run(work, jobs, tmp_path)
    assert not any(name in str(caught.value) for name in ("innocent", "later", "unlucky"))
    assert all((tmp_path / name).exists() for name in ("innocent", "later", "unlucky"))
    assert len(tried(jobs[1])) == 2


def test_killed_tasks_are_retried_one_at_a_time(tmp_path, monkeypatch):
    jobs = [Job(name, tmp_path, deaths=1, seconds=0.2) for name in "abc"]
    num_alive, begin = [], runner.Worker.begin
    started: list[runner.Worker] = []

    def counted(worker, function, task):
        started.append(worker)
        begin(worker, function, task)
        num_alive.append(len({other.pid for other in started if alive(other.pid)}))

    monkeypatch.setattr(runner.Worker, "begin", counted)
    run(work, jobs, tmp_path, workers=3)
    assert len(num_alive) == 6 and num_alive[3:] == [1, 1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive_as_they_are_and_nothing_goes_on(tmp_path, workers):
    jobs = [Job("wrong", tmp_path, size=3, raises="request"), Job("long", tmp_path, size=2, seconds=30), Job("next", tmp_path)]
    with pytest.raises(RequestError, match=r"^wrong is wrong$"):
        run(work, jobs, tmp_path, workers)
    assert not (tmp_path / "long").exists() and not tried(jobs[2])
    assert not any(alive(pid) for pid in tried(jobs[1]))


def test_unexpected_exceptions_keep_their_traceback(tmp_path):
    with pytest.raises(RuntimeError, match=r"Unsendable: odd 2 is odd") as caught:
        run(work, [Job("odd", tmp_path, raises="own", size=2), Job("e", tmp_path)], tmp_path)
    assert "in work" in str(caught.value)
    line = errors.unexpected(caught.value)  # names the line in the task; the trace of the worker process is in the file
    assert re.search(r"odd 2 is odd \(in work\) \(executors/tasks\.py:\d+\); the full trace is in ", line), line
    trace = Path(line.rpartition(" ")[2])
    assert "in a worker process:\nTraceback" in trace.read_text()
    trace.unlink()
    with pytest.raises(PacklmError, match=r"^big: out of memory; .*--dataset\.workers"):
        run(work, [Job("big", tmp_path, raises="memory", size=2), Job("f", tmp_path)], tmp_path)


def test_workers_stay_from_step_to_step_and_end_with_the_runner(tmp_path):
    with TaskRunner(config.Dataset(workers=2)) as task_runner:
        steps = [[Job(name, tmp_path, seconds=0.2) for name in names] for names in ("abc", "de")]
        for jobs in steps:
            task_runner.run(work, jobs, "tasks", tmp_path)
        pids = [{pid for job in jobs for pid in tried(job)} for jobs in steps]
        assert len(pids[0]) == 2 and pids[0] == pids[1] and all(alive(pid) for pid in pids[0])
        for pid in pids[0]:
            os.kill(pid, signal.SIGKILL)  # between two steps
        until(lambda: not any(alive(pid) for pid in pids[0]))
        task_runner.run(work, [Job("f", tmp_path), Job("g", tmp_path)], "tasks", tmp_path)
        assert {len(tried(Job(name, tmp_path))) for name in "fg"} == {1}
        last = tried(Job("g", tmp_path))
    assert not any(alive(pid) for pid in last)


def test_the_largest_task_begins_first(tmp_path):
    begun = []
    jobs = [Job(str(size), tmp_path, size=size) for size in (2, 5, 1, 4)]
    run(lambda task: begun.append(task.size), jobs, tmp_path, workers=1)
    assert begun == [5, 4, 2, 1]


def test_a_worker_is_one_core(tmp_path):
    run(cores, [Job("a", tmp_path), Job("b", tmp_path)], tmp_path)
    assert (tmp_path / "a").read_text() == "[1, 1, 'false', '1']"


def test_a_worker_takes_no_time_to_import_pandas(tmp_path):
    run(imports, [Job("a", tmp_path), Job("b", tmp_path)], tmp_path)
    assert (tmp_path / "a").read_text() == "False"


PROGRAM = """
import signal, sys
from pathlib import Path
from packlm import config
from preprocess.executors.runner import TaskRunner
from tests.preprocess.executors.tasks import Task, work
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell inherit that it is ignored
folder = Path(sys.argv[1])
with TaskRunner(config.Dataset(workers=2)) as task_runner:
    task_runner.run(work, [Task(name, folder, seconds=60) for name in "ab"], "tasks", folder)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, signum):
    jobs = [Job(name, tmp_path) for name in "ab"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    starter = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: all((tmp_path / f"{name}.running").exists() for name in "ab"))
    workers = [pid for job in jobs for pid in tried(job)]
    assert len(workers) == 2 and all(alive(pid) for pid in workers)
    os.killpg(starter.pid, signum)  # as a terminal does
    _, told = starter.communicate(timeout=10)
    until(lambda: not any(alive(pid) for pid in workers), seconds=5)
    assert told.count("Traceback") == (signum == signal.SIGINT)

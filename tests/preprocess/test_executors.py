"""Tasks in processes: killed ones are tried again, errors arrive, nothing hangs."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import PacklmError, RequestError
from preprocess import executors


@dataclass(frozen=True)
class Task:
    name: str
    folder: Path
    deaths: int = 0


def work(task: Task) -> None:
    """Dies the first `deaths` times, by the signal that the kernel sends when memory runs out."""
    tries = task.folder / f"{task.name}.tries"
    before = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (before + 1))
    if before < task.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name == "wrong":
        raise RequestError("wrong is wrong")
    (task.folder / task.name).write_text(os.environ.get("TOKENIZERS_PARALLELISM", ""))


def test_a_killed_worker_is_tried_again_and_then_named(tmp_path):
    executors.run(work, [Task("a", tmp_path), Task("b", tmp_path, deaths=1), Task("c", tmp_path)], workers=2)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["false"] * 3
    with pytest.raises(PacklmError, match=r"killed twice; not done: .*bad"):
        executors.run(work, [Task("bad", tmp_path, deaths=2), Task("d", tmp_path)], workers=2)


def test_errors_arrive_as_they_are(tmp_path):
    with pytest.raises(RequestError, match="wrong is wrong"):
        executors.run(work, [Task("wrong", tmp_path), Task("e", tmp_path)], workers=2)
    with pytest.raises(RequestError, match="wrong is wrong"):
        executors.run(work, [Task("wrong", tmp_path), Task("f", tmp_path)], workers=1)
    assert not (tmp_path / "f").exists()

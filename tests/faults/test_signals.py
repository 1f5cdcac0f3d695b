"""Signals at random moments of real commands: one line and status 75 within seconds, no process left, and the rerun ends as undisturbed."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm.base import program

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PACKLM_SEED", time.time_ns() % 10**6))
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks processes up in /proc")
pytestmark = needs_proc
Make = Callable[[Path], list[str]]


class Command:
    """A command in a session of its own, with a mark in the environment of it and of all its descendants."""

    def __init__(self, words: list[str]):
        self.mark = f"PACKLM_TEST_MARK={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {name: value, "OMP_NUM_THREADS": "1"}, preexec_fn=_default_signals,
        )  # fmt: skip

    def wait_for_handlers(self) -> None:
        """Waits until the process has its own handlers: before, Python itself has not begun."""
        path = Path(f"/proc/{self.process.pid}/status")
        while self.process.poll() is None:
            caught = next(int(line.split()[1], 16) for line in path.read_text().splitlines() if line.startswith("SigCgt"))
            if all(caught >> (number - 1) & 1 for number in program.SIGNALS):
                return
            time.sleep(0.001)

    def end(self, seconds: float) -> tuple[int, str]:
        errors = self.process.communicate(timeout=seconds)[1]
        return self.process.returncode, errors

    def left(self) -> list[int]:
        """Processes with the mark that still run."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self.mark in _environment(path)]


def _default_signals() -> None:
    for number in program.SIGNALS:  # a shell's background jobs inherit that SIGINT is ignored
        signal.signal(number, signal.SIG_DFL)


def _environment(process: Path) -> list[str]:
    try:
        return (process / "environ").read_text().split("\0")
    except OSError:
        return []


def tree(folder: Path, content: Callable[[Path], bool]) -> dict[str, str]:
    """Path -> digest of every file, hidden ones too, and of empty folders; the digest is "" where `content` is false."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and content(path) else ""
        for name, path in paths.items()
        if path.is_file() or not any(path.iterdir())
    }


def words_of(command: str, made: Any, corpus: Path) -> Make:
    """The command line for a folder of results."""
    config = made("bpe")
    off = ["--tracking.uri=", "--train.device=cpu"]
    model = ["--model", str(config.run.dir / "model"), *off]
    corpus_settings = [
        f"--corpus.train={corpus / 'train'}",
        f"--corpus.validation={corpus / 'validation'}",
        "--corpus.sentences=line",
        "--corpus.format=auto",
    ]
    corpus_settings += [
        "--tokenizer.kind=bpe",
        "--tokenizer.vocab_size=270",
        "--dataset.workers=2",
        "--dataset.shards=3",
        "--corpus.validation_fraction=0",
    ]
    training = [
        "--model.hidden=8",
        "--train.max_steps=60",
        "--train.epochs=99",
        "--train.global_batch_tokens=60",
        "--train.samples=1",
        "--train.keep=1",  # a stop writes a checkpoint of its own, which would count among the latest
        "--train.processes=1",
    ]

    def make(folder: Path) -> list[str]:
        text = folder.parent / "text.txt"
        text.write_text("".join(f"the cat sees {number} dogs\n" for number in range(300)))
        return {
            "preprocess": ["-m", "preprocess", f"--dataset.dir={folder / 'data'}", *corpus_settings, *off],
            "train": ["train", f"--dataset.dir={config.dataset.dir}", f"--run.dir={folder}", *training, *off],
            "evaluate": [
                "-m", "serve", "evaluate", *model, f"--data={config.dataset.dir}", "--split=validation", f"--out={folder / 'report.md'}"
            ],
            "generate": [
                "-m", "serve", "generate", *model, "--prompts", str(text), "--max-tokens=20", "--generate.batch_tokens=200",
                f"--out={folder / 'out.jsonl'}",
            ],
            "run": [
                "-m", "pipeline", "run", f"--dataset.dir={folder / 'data'}", f"--run.dir={folder}", *corpus_settings, *training, *off
            ],
        }[command]  # fmt: skip

    return make


LONG = [pytest.param(command, 1, marks=pytest.mark.long) for command in ("train", "evaluate", "generate", "run")]


@pytest.mark.parametrize(("command", "times"), [("preprocess", 2), *LONG])
def test_a_signal_at_any_moment_is_one_line_and_the_rerun_ends_as_undisturbed(
    made: Any, corpus: Path, tmp_path: Path, command: str, times: int
) -> None:
    generator = random.Random(f"{SEED} {command}")
    make = words_of(command, made, corpus)

    def same(path: Path) -> bool:  # other files of a training hold times
        return command not in ("train", "run") or (path.parent.name == "model" and path.suffix == ".safetensors")

    (tmp_path / "undisturbed").mkdir()
    began = time.monotonic()
    status, errors = Command(make(tmp_path / "undisturbed")).end(120)
    duration = time.monotonic() - began
    assert status == 0, errors
    expected = tree(tmp_path / "undisturbed", same)
    for index in range(times):
        folder = tmp_path / str(index)
        folder.mkdir()
        moment, number = generator.uniform(0, duration), generator.choice(program.SIGNALS)
        what = f"PACKLM_SEED={SEED}: {number.name} to {command} after {moment:.2f} of {duration:.2f} s"
        print(what)
        job = Command(make(folder))
        job.wait_for_handlers()
        time.sleep(moment)
        job.process.send_signal(number)
        sent = time.monotonic()
        status, errors = job.end(30)
        assert time.monotonic() - sent < 20, what
        lines = [line for line in errors.splitlines() if line.startswith(("error: ", "critical: "))]
        assert status in (0, 75) and "Traceback" not in errors and "unexpected" not in errors, f"{what}\n{errors}"
        assert [*lines] == [] if status == 0 else lines and "stopped " in lines[-1], f"{what}\n{errors}"
        assert len(lines) <= (2 if command == "run" else 1), f"{what}\n{errors}"
        until = time.monotonic() + 5
        while (left := job.left()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not left, what
        status, errors = Command(make(folder)).end(120)
        assert status == 0, f"{what}\n{errors}"
        assert tree(folder, same) == expected, what

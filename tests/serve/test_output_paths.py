"""Where results are written: every path that `--out` and its like can name, of every command that has one."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mounts import mounted

ROOT = Path(__file__).resolve().parents[2]
CommandLine = Callable[..., tuple[int, str, str]]
NBEST = '{"id": "u1", "reference": "the cat", "hypotheses": [{"text": "the cat", "score": -1.0}, {"text": "a cat", "score": -2.0}]}\n'
PAIRS = "good\tbad\nthe cat sees the dog\tthe cat see the dog\n"


@pytest.fixture
def commands(made: Any, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Command -> (its words without outputs, its input file)."""
    model = ["--model", str(made("bpe").run.dir / "model"), "--train.device", "cpu"]
    inputs = {"text.txt": "the cat sees the dog\na dog\n", "pairs.tsv": PAIRS, "nbest.jsonl": NBEST}
    (tmp_path / "in").mkdir()
    for name, text in inputs.items():
        (tmp_path / "in" / name).write_text(text)
    text, pairs, nbest = (str(tmp_path / "in" / name) for name in inputs)
    return {
        "evaluate": (["evaluate", *model, "--text", text], text),
        "score": (["score", *model, "--input", text], text),
        "pairs": (["pairs", *model, "--input", pairs], pairs),
        "rescore": (["rescore", *model, "--nbest", nbest, "--lm-weight", "0.5"], nbest),
        "generate": (["generate", *model, "--prompts", text, "--max-tokens", "3"], text),
    }


OPTIONS = [
    ("evaluate", "--out"), ("score", "--out"), ("score", "--html"), ("pairs", "--out"), ("pairs", "--summary"), ("rescore", "--out"),
    ("rescore", "--summary"), ("generate", "--out"),
]  # fmt: skip


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is mounted for reading; skips the test without the right to mount one."""
    with mounted(tmp_path / "read-only", "ro") as folder:
        yield folder


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_path_that_cannot_be_written_is_refused_before_any_work(
    command_line: CommandLine, commands: Any, tmp_path: Path, read_only: Path, command: str, option: str
) -> None:
    words, source = commands[command]
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    for path, reason in (
        (tmp_path / "no" / "such" / "x", f"there is no folder {tmp_path / 'no' / 'such'}"),
        (tmp_path / "file" / "x", f"there is no folder {tmp_path / 'file'}"),
        (tmp_path, "is a folder"),
        (Path("/proc/x"), "cannot be written: No such file"),
        (read_only / "x", "cannot be written: Read-only file system"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
        (Path(source), "would write over the input"),
    ):
        status, out, errors = command_line("serve", *words, option, path)
        assert (status, out) == (2, "") and errors.count("\n") == 1, (path, errors)
        assert errors.startswith("error: ") and f"{option} {path}" in errors and reason in errors
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "a file"


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_device_or_fifo_is_written_to_as_it_is(
    command_line: CommandLine, commands: Any, tmp_path: Path, command: str, option: str
) -> None:
    words, _ = commands[command]
    assert command_line("serve", *words, option, tmp_path / "file")[0] == 0
    full, null = tmp_path / "full", tmp_path / "null"  # not those of this machine, which a failure would replace
    try:
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("needs the right to make devices")
    before = sorted(tmp_path.rglob("*"))
    status, _, errors = command_line("serve", *words, option, full)
    assert status == 1 and errors.splitlines()[-1].startswith(f"error: {full}: cannot be written: No space left on device"), errors
    assert command_line("serve", *words, option, null)[0] == 0
    assert stat.S_ISCHR(full.stat().st_mode) and stat.S_ISCHR(null.stat().st_mode) and sorted(tmp_path.rglob("*")) == before
    os.mkfifo(tmp_path / "fifo")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    assert command_line("serve", *words, option, tmp_path / "fifo")[0] == 0
    reader.join()
    assert received == [(tmp_path / "file").read_bytes()] and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        status, _, errors = command_line("serve", *words, option, tmp_path / "socket")
        assert status in (1, 2) and f"{tmp_path / 'socket'}: cannot be written" in errors
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "fifo", tmp_path / "socket"])


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_symbolic_link_stays_and_its_target_is_written(
    command_line: CommandLine, commands: Any, tmp_path: Path, command: str, option: str
) -> None:
    words, _ = commands[command]
    assert command_line("serve", *words, option, tmp_path / "file")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "target")
    for _ in range(2):  # the target is made, then replaced
        assert command_line("serve", *words, option, tmp_path / "link")[0] == 0
        assert (tmp_path / "link").is_symlink() and [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["target"]
        assert (tmp_path / "elsewhere" / "target").read_bytes() == (tmp_path / "file").read_bytes()
        (tmp_path / "elsewhere" / "target").write_text("old")


@pytest.mark.parametrize(("command", "redirection"), [("evaluate", "> /dev/full"), ("score", ">&-"), ("generate", "> /dev/full")])
def test_standard_output_that_is_closed_or_full_is_a_failure(commands: Any, tmp_path: Path, command: str, redirection: str) -> None:
    words, _ = commands[command]
    shell = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, str(ROOT / "serve")]
    done = subprocess.run([*shell, *words, "--out", "-"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: standard output cannot be written: "), done.stderr
    assert "Traceback" not in done.stderr


def test_two_outputs_are_two_files(command_line: CommandLine, commands: Any, tmp_path: Path) -> None:
    status, _, errors = command_line("serve", *commands["score"][0], "--out", tmp_path / "x", "--html", tmp_path / "." / "x")
    assert status == 2 and f"would write over --out {tmp_path / 'x'}" in errors
    (tmp_path / "figure.svg").mkdir()
    status, _, errors = command_line("serve", *commands["evaluate"][0], "--out", tmp_path / "figure.md")
    assert status == 2 and "figure.svg is a folder" in errors and not (tmp_path / "figure.md").exists()

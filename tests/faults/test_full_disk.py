"""A full disk, in every stage: one line that names the file and the remedy, and the rerun with more room ends as undisturbed."""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packlm.base import files
from packlm.base.errors import PacklmError
from tests.mounts import mounted
from train.progress.metrics import MetricsWriter

CommandLine = Callable[..., tuple[int, str, str]]
SEED = int(os.environ.get("PACKLM_SEED", time.time_ns() % 10**6))
KILOBYTES = 1024
PAGE_KB = 4


class Disk:
    """A small file system."""

    def __init__(self, folder: Path):
        self.folder = folder

    def resize(self, kilobytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(self.folder)], check=True)

    def empty(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.folder)], check=True)

    @property
    def used_kb(self) -> int:
        usage = os.statvfs(self.folder)
        return (usage.f_blocks - usage.f_bfree) * usage.f_frsize // KILOBYTES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "size=64m") as folder:
        yield Disk(folder)


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


LONG = [pytest.param(command, marks=pytest.mark.long) for command in ("generate", "evaluate", "score", "pairs", "rescore")]


@pytest.mark.parametrize("command", ["preprocess", "states", *LONG])
def test_a_full_disk_is_one_line_and_the_rerun_ends_as_undisturbed(
    command_line: CommandLine, made: Any, corpus: Path, disk: Disk, tmp_path: Path, command: str
) -> None:
    """Disks of random sizes, down to none, between empty and what the command takes."""
    generator = random.Random(f"{SEED} {command}")
    model = ["--model", str(made("bpe").run.dir / "model"), "--train.device=cpu"]
    (tmp_path / "text.txt").write_text("".join(f"the cat sees {number} dogs\n" for number in range(300)))
    (tmp_path / "pairs.tsv").write_text("good\tbad\n" + "the cat sees the dog\tthe cat see the dog\n" * 300)
    hypotheses = '"hypotheses": [{"text": "the cat", "score": -1.0}, {"text": "a cat", "score": -2.0}]'
    (tmp_path / "nbest.jsonl").write_text("".join(f'{{"id": "u{number}", {hypotheses}}}\n' for number in range(100)))
    out, text = disk.folder / "out.jsonl", tmp_path / "text.txt"
    stage, *words = {
        "preprocess": [
            "preprocess", f"--corpus.train={corpus / 'train'}", "--corpus.format=auto", f"--dataset.dir={disk.folder / 'data'}",
            "--tokenizer.kind=bpe", "--tokenizer.vocab_size=270", "--dataset.workers=1", "--tracking.uri=",
        ],
        "evaluate": ["serve", "evaluate", *model, "--text", text, "--out", disk.folder / "out.md"],
        "score": ["serve", "score", *model, "--input", text, "--out", out, "--html", disk.folder / "map.html"],
        "pairs": ["serve", "pairs", *model, "--input", tmp_path / "pairs.tsv", "--out", out, "--summary", disk.folder / "summary.json"],
        "rescore": ["serve", "rescore", *model, "--nbest", tmp_path / "nbest.jsonl", "--lm-weight=0.5", "--out", out],
        "states": ["serve", "states", *model, "--input", text, "--out", disk.folder / "out.parquet"],
        "generate": ["serve", "generate", *model, "--prompts", text, "--max-tokens=5", "--generate.batch_tokens=100", "--out", out],
    }[command]  # fmt: skip
    assert command_line(stage, *words)[0] == 0
    expected, peak = tree(disk.folder), disk.used_kb
    num_failures = 0
    for kilobytes in (PAGE_KB, PAGE_KB * 2, *(generator.randint(1, max(1, peak // PAGE_KB)) * PAGE_KB for _ in range(3))):
        what = f"PACKLM_SEED={SEED}: {command} on {kilobytes} KiB, takes {peak}"
        print(what)
        disk.empty()
        disk.resize(kilobytes)
        status, _, errors = command_line(stage, *words)
        lines = [line for line in errors.splitlines() if line.startswith(("error: ", "critical: "))]
        if status:
            num_failures += 1
            assert status in (1, 2) and len(lines) == 1 and str(disk.folder) in lines[0], f"{what}\n{errors}"
            assert "free some space and run the same command again" in lines[0] and "Traceback" not in errors, f"{what}\n{errors}"
        else:
            assert not lines and tree(disk.folder) == expected, what
        disk.resize(64 * KILOBYTES)
        status, _, errors = command_line(stage, *words)
        assert status == 0, f"{what}\n{errors}"
        assert tree(disk.folder) == expected, what
    assert num_failures


def test_a_line_of_metrics_that_has_no_room_is_an_error_that_names_the_file(disk: Disk) -> None:
    writer = MetricsWriter(disk.folder / "metrics.jsonl", 0, False)
    disk.resize(PAGE_KB)
    with pytest.raises(PacklmError, match=r"metrics\.jsonl: the disk is full \([\d,]+ bytes free\); free some space"):
        for step in range(1000):
            writer.write(step, step, {"train/loss": 1.0})
    disk.resize(KILOBYTES)
    kept = (disk.folder / "metrics.jsonl").read_text().count("\n")
    MetricsWriter(disk.folder / "metrics.jsonl", kept - 1, True).write(kept, kept, {"train/loss": 2.0})
    steps = [json.loads(line)["step"] for line in (disk.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(kept), kept]


def test_a_lock_needs_no_room(disk: Disk) -> None:
    (disk.folder / "filler").write_bytes(b"x" * 8 * PAGE_KB * KILOBYTES)
    disk.resize(8 * PAGE_KB)
    with (
        files.lock(disk.folder / ".lock"),
        pytest.raises(PacklmError, match="in use by another process"),
        files.lock(disk.folder / ".lock"),
    ):
        pass
    assert [path.name for path in disk.folder.iterdir()] == ["filler"]

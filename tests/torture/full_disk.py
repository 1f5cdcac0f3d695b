"""Runs every stage on a disk that becomes full at a random place, then again with room: one error line, then the usual result."""

import contextlib
import random
import subprocess

from . import world as worlds
from .readers import READERS
from .verdict import Outcome, Verdict, judge
from .world import World

_DISK = "small"
COMMANDS: dict[str, tuple[str, ...]] = {
    "preprocess": ("preprocess", "--config", "config.toml", "--dataset.dir", f"{_DISK}/data"),
    "train": ("train", "--config", "config.toml", "--run.dir", f"{_DISK}/run"),
    "generate": (*worlds.GENERATE, f"{_DISK}/out.jsonl"),
    "generate to Parquet": (*worlds.GENERATE, f"{_DISK}/out.parquet"),
    "evaluate": (*READERS["evaluate-data"].words[:-1], f"{_DISK}/report.md"),
    "score": ("serve", "score", "--model", "run/model", "--input", "corpus/1.txt", "--out", f"{_DISK}/scores.tsv"),
}
_LARGEST_KIB = {"preprocess": 100, "train": 600, "generate": 24, "generate to Parquet": 24, "evaluate": 60, "score": 24}


def prepare(world: World) -> None:
    """Runs the commands with room on the disk."""
    for name, words in COMMANDS.items():
        world.restore()
        (world.folder / _DISK).mkdir()
        ended = world.must(*words)
        world.expected[f"disk {name}"] = worlds.fingerprint(world.folder, (_DISK,), ended.out)
    world.restore()


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One command on one size of disk."""
    name = list(COMMANDS)[number % len(COMMANDS)]
    words, size = [*COMMANDS[name]], generator.randrange(4, _LARGEST_KIB[name], 4)
    disk = world.folder / _DISK
    disk.mkdir()
    what = f"{' '.join(words)} on a disk of {size} KiB"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        return Verdict(Outcome.OK, f"{what}: not tried, which needs the right to mount a file system")
    try:
        first = judge(world.run(words), [], what)
        if first.outcome not in (Outcome.OK, Outcome.NAMED):
            return first
        if first.outcome is Outcome.NAMED and not any(reason in first.detail for reason in ("full", "No space")):
            return Verdict(Outcome.TRACEBACK, f"{first.detail}\nwhich does not say that the disk is full")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = world.run(words)
        differing = worlds.differences(world.expected[f"disk {name}"], worlds.fingerprint(world.folder, (_DISK,), again.out))
        if again.status or differing:
            return Verdict(Outcome.LOST, f"{what}; again with room: status {again.status}, {'; '.join(differing)}\n{again.errors[-1500:]}")
        return first
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", str(disk)], check=True)

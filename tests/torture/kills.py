"""Kills commands with kill -9, runs them again, and compares everything that is there with an undisturbed run, hidden files included.

Even trials kill the process itself right before it opens a file for writing, syncs, renames or removes one, at every such point in turn;
odd trials start the real command, under torchrun on 2 and 4 ranks too, and kill all its processes, or one of them, at a random moment.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import packlm

from . import kill_points
from . import world as worlds
from .fork_server import ENVIRONMENT
from .verdict import Outcome, Verdict
from .world import World

ROOT = Path(packlm.__file__).parents[1]
_STRIDE = 37
"""Of the kill points of one trial and the next: a short run sees the beginning, the middle and the end."""


@dataclass(frozen=True)
class Target:
    """A command to be killed, in all its forms, which give the same bytes."""

    words: tuple[str, ...]
    writes: tuple[str, ...]
    """All that it writes: everything there must be as after an undisturbed run, and nothing else."""
    ranks: tuple[int, ...] = (1,)
    more: tuple[str, ...] = ()
    """Settings of the real command."""


TARGETS = {
    "kills-preprocess": Target(
        ("preprocess", "--config", "config.toml", "--dataset.dir", "killed/data", "--tokenizer.kind", "word", "--dataset.shards", "3"),
        ("killed",), more=("--dataset.workers", "2"),
    ),
    "kills-training": Target(("train", "--config", "config.toml", "--run.dir", "killed/run"), ("killed",), (1, 2, 4)),
    "kills-generation": Target(("serve", *worlds.GENERATE[1:], "killed/out.jsonl"), ("killed",), (1, 2)),
}  # fmt: skip


def prepare(world: World, name: str) -> None:
    """Runs the command undisturbed: its files, the number of its kill points, and how long it takes on each number of ranks."""
    target = TARGETS[name]
    world.restore()
    counter = world.folder.with_name(f"{name}.count")
    _make_folder(world)
    world.must(*target.words, before=lambda: kill_points.install(0, counter))
    world.expected[name] = worlds.fingerprint(world.folder, target.writes)
    world.expected[name]["kill points"] = counter.read_text()


def trial(world: World, name: str, number: int, generator: random.Random) -> Verdict:
    """Kills the command up to three times, then runs it to its end."""
    target = TARGETS[name]
    _make_folder(world)
    expected = dict(world.expected[name])
    num_points = int(expected.pop("kill points"))
    if number % 2 == 0:
        what = _kill_at_points(world, target, num_points, number // 2, generator)
    else:
        what = _kill_at_moments(world, target, target.ranks[number // 2 % len(target.ranks)], generator)
    ended = world.run([*target.words])
    what = f"{' '.join(target.words)}: {what}"
    if ended.status != 0:
        outcome = Outcome.HANG if ended.status is None else Outcome.LOST
        return Verdict(outcome, f"{what}; the rerun ended with {ended.status}: {ended.errors[-1500:]}")
    differing = worlds.differences(expected, worlds.fingerprint(world.folder, target.writes))
    return Verdict(Outcome.LOST if differing else Outcome.OK, f"{what}; {'; '.join(differing[:9])}")


def _make_folder(world: World) -> None:
    (world.folder / "killed").mkdir(exist_ok=True)


def _kill_at_points(world: World, target: Target, num_points: int, number: int, generator: random.Random) -> str:
    points = [number * _STRIDE % num_points + 1, *(generator.randint(1, num_points) for _ in range(generator.randrange(3)))]
    for point in points:
        ended = world.run([*target.words], before=lambda point=point: kill_points.install(point))
        if ended.status == 0:
            break
        if ended.status != -signal.SIGKILL:
            raise RuntimeError(f"killed at point {point}, but ended with {ended.status}: {ended.errors}")
    return f"killed at the points {points} of {num_points}"


def _kill_at_moments(world: World, target: Target, ranks: int, generator: random.Random) -> str:
    kills = []
    for _ in range(generator.randint(1, 2)):
        process = _start(world, target, ranks)
        began = time.monotonic()
        # Most of the time until the work begins goes to imports: wait for the first file, or a little of those.
        wait_for_files, seconds = generator.random() < 0.8, generator.uniform(0, 2.5)
        while wait_for_files and process.poll() is None and not any((world.folder / "killed").iterdir()):
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        everything = generator.random() < 0.6 or process.poll() is not None
        processes = _descendants(process.pid)
        victims = [process.pid, *processes] if everything or not processes else [generator.choice(processes)]
        kills.append(f"{len(victims)} of {len(processes) + 1} processes after {time.monotonic() - began:.1f} s")
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        process.wait(120)
        while any(Path(f"/proc/{number}").exists() for number in processes):
            time.sleep(0.05)
    return f"{ranks} rank(s), killed {' and '.join(kills)}"


def _start(world: World, target: Target, ranks: int) -> "subprocess.Popen[bytes]":
    stage, *words = target.words
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(ROOT / stage)] if ranks > 1 else ["-m", stage]
    )
    environment = os.environ | ENVIRONMENT | {"HF_DATASETS_CACHE": str(world.folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *launcher, *words, *target.more], cwd=world.folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _descendants(process: int) -> list[int]:
    """Ids of all processes that a process has started, and that these have."""
    try:
        children = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(descendant for child in children for descendant in _descendants(child))]

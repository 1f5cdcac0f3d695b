"""The program: `python -m tests.torture --minutes 20 [--seed 7] [--only flips,mutations] [--trials 500] [--trial 123]`."""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import flips, fork_server, full_disk, kills, malformed, malicious, mlflow_modes, mutations, readers, side_by_side
from .verdict import FAILURES, Outcome, Verdict, table
from .world import World


class Part(NamedTuple):
    """A kind of trials."""

    trial: Callable[[World, int, random.Random], Verdict]
    share: float
    """Share of the minutes."""
    prepare: Callable[[World], None] | None = None
    count: int | None = None
    """Number of different trials; None: as many as there is time for."""


def _kills(name: str, share: float) -> Part:
    return Part(
        lambda world, number, generator: kills.trial(world, name, number, generator), share, lambda world: kills.prepare(world, name)
    )


def _prepare_mlflow(world: World) -> None:
    readers.prepare(world)
    mlflow_modes.prepare(world)


PARTS = {
    "kills-preprocess": _kills("kills-preprocess", 3),
    "kills-training": _kills("kills-training", 4),
    "kills-generation": _kills("kills-generation", 2),
    "flips": Part(flips.trial, 2, readers.prepare),
    "mutations": Part(mutations.trial, 2, readers.prepare),
    "malformed": Part(malformed.trial, 2, count=len(malformed.CASES)),
    "malicious": Part(malicious.trial, 2, count=len(malicious.CASES)),
    "full-disk": Part(full_disk.trial, 1, full_disk.prepare),
    "side-by-side": Part(side_by_side.trial, 1, readers.prepare),
    "mlflow": Part(mlflow_modes.trial, 2, _prepare_mlflow),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="time for all parts, without making their files")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--trials", type=int, help="trials of each part, instead of --minutes")
    parser.add_argument("--trial", type=int, help="this trial alone, with its outcome")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--only: there is no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    print(f"seed {arguments.seed}", flush=True)
    fork_server.start()
    tallies: dict[str, Counter[Outcome]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        worlds = _make_worlds(Path(temporary), 1 if arguments.trial is not None else arguments.jobs)
        shares = sum(PARTS[name].share for name in names)
        for name in names:
            began = time.monotonic()
            limit = arguments.minutes * 60 * PARTS[name].share / shares
            tallies[name] = _run_part(name, arguments, limit, worlds)
            seconds[name] = time.monotonic() - began
    print(f"\nseed {arguments.seed}\n{table(tallies, seconds)}")
    sys.exit(any(tally[outcome] for tally in tallies.values() for outcome in FAILURES))


def _make_worlds(folder: Path, count: int) -> list[World]:
    worlds = [World(folder / str(number)) for number in range(count)]
    began = time.monotonic()
    children = [_forked(world.make) for world in worlds]
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit("the files could not be made")
    print(f"made the files in {time.monotonic() - began:.0f} s", flush=True)
    return worlds


def _forked(action: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def _run_part(name: str, arguments: argparse.Namespace, limit: float, worlds: list[World]) -> Counter[Outcome]:
    """Runs trials, one at a time in each world, until the time or their number is over."""
    part, tally = PARTS[name], Counter[Outcome]()
    if part.prepare:
        for world in worlds:
            part.prepare(world)
    last = arguments.trials or part.count if arguments.trial is None else arguments.trial + 1
    number, until = arguments.trial or 0, None if arguments.trial is not None or arguments.trials else time.monotonic() + limit
    free, running = list(worlds), {}
    while True:
        more = (last is None or number < last) and (until is None or time.monotonic() < until)
        if more and free:
            world, report = free.pop(), os.memfd_create("verdict")
            child = os.fork()
            if child == 0:
                _trial_in_child(part, world, number, f"{arguments.seed} {name} {number}", report)
            running[child] = number, world, report
            number += 1
            continue
        if not running:
            return tally
        child, _ = os.wait()
        done, world, report = running.pop(child)
        verdict = _verdict(report)
        free.append(world)
        tally[verdict.outcome] += 1
        if verdict.outcome in FAILURES or arguments.trial is not None:
            again = f"python -m tests.torture --only {name} --seed {arguments.seed} --trial {done}"
            print(f"\n{verdict.outcome.upper()} {verdict.detail}\n    {again}", flush=True)


def _trial_in_child(part: Part, world: World, number: int, seed: str, report: int) -> None:
    try:
        world.restore()
        verdict = part.trial(world, number, random.Random(seed))
    except BaseException:
        verdict = Verdict(Outcome.LOST, f"the trial itself failed\n{traceback.format_exc()[-1500:]}")
    os.write(report, json.dumps([verdict.outcome, verdict.detail]).encode())
    os._exit(0)


def _verdict(report: int) -> Verdict:
    outcome, detail = json.loads(os.pread(report, 1 << 22, 0))
    os.close(report)
    return Verdict(Outcome(outcome), detail)


if __name__ == "__main__":
    main()

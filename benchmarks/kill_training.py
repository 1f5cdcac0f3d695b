"""Kills a training at random times, resumes it, and compares every checkpoint with that of an undisturbed training, bit for bit.

    python benchmarks/kill_training.py --times 30
    python benchmarks/kill_training.py --times 300 --seed 7 --worlds 2 4

For each number of ranks: one undisturbed training, then trainings that are killed again and again. A kill is SIGKILL of torchrun and all
ranks, or of one rank (torchrun then ends the others), after a random time of up to 1.2 times the length of a training. After each kill the
same command runs again. All checkpoints are kept, so each kill is judged by itself: the checkpoints written by then, tensors and state,
must equal those of the undisturbed training.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import random_dataset

STEPS = 400
SETTINGS = {
    "train.segments": "streams", "train.streams": 4, "train.window": 6, "train.window_drawn": "true", "train.epochs": 99,
    "train.max_steps": STEPS, "train.validate_every": 50, "train.checkpoint_every": 7, "train.keep": 10_000, "train.log_every": 1,
    "train.optimizer": "nt-asgd", "train.lr": 8.0, "train.nt_interval": 1, "train.schedule": "constant", "train.device": "cpu",
    "model.hidden": 16, "model.dropout": 0.2, "model.weight_drop": 0.2, "tracking.uri": "",
}  # fmt: skip
MACHINE_DEPENDENT = ("time", "train/tokens_per_second", "train/data_wait", "train/memory_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30, help="kills, over all numbers of ranks")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator, failed = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_dataset.write(folder / "data", counts=(400, 20), vocab_size=300)
        for number, world in enumerate(arguments.worlds):
            times = arguments.times // len(arguments.worlds) + (number < arguments.times % len(arguments.worlds))
            failed += kill_repeatedly(folder, world, times, generator)
    sys.exit(failed > 0)


def kill_repeatedly(folder: Path, world: int, times: int, generator: random.Random) -> int:
    """Kills trainings on `world` ranks `times` times; returns the number of differences."""
    started = time.monotonic()
    undisturbed = folder / f"undisturbed-{world}"
    finish(start(folder, undisturbed, world))
    length = time.monotonic() - started
    print(f"{world} rank(s), undisturbed: {length:.1f} s, {len(checkpoints(undisturbed))} checkpoints", flush=True)
    kinds: Counter[str] = Counter()
    killed, runs, differences = 0, 0, 0
    while killed < times:
        runs += 1
        run = folder / f"killed-{world}-{runs}"
        while killed < times:
            process, started = start(folder, run, world), time.monotonic()
            before, seconds = len(checkpoints(run)), generator.uniform(0, 1.2 * length)
            try:
                process.wait(seconds)
                length = length if before else time.monotonic() - started  # the machine may be less busy than before
                break
            except subprocess.TimeoutExpired:
                one_rank = world > 1 and generator.random() < 0.5
                kill(process, one_rank, generator)
                killed += 1
            after = len(checkpoints(run))
            kinds["before the first checkpoint" if not after else "during training" if after > before else "while resuming"] += 1
            kinds["one rank" if one_rank else "all ranks"] += 1
            differences += compare(run, undisturbed, f"kill {killed}")
        finish(start(folder, run, world))
        differences += compare(run, undisturbed, "the end")
        differences += lines(run) != lines(undisturbed)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{world} rank(s): killed {killed} times in {runs} training(s) ({counts}); differences: {differences}", flush=True)
    return differences


def start(folder: Path, run: Path, world: int) -> "subprocess.Popen[bytes]":
    """Starts the command in a process group of its own."""
    arguments = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    command = [sys.executable, *torchrun, str(ROOT / "train"), "--dataset.dir", str(folder / "data"), "--run.dir", str(run), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits until the command has succeeded."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"train ended with {process.returncode}:\n{errors.decode()}")


def kill(process: "subprocess.Popen[bytes]", one_rank: bool, generator: random.Random) -> None:
    """Kills one rank, and lets torchrun end the others; or kills all. Returns when all processes are gone."""
    ranks = children(process.pid)
    if one_rank and ranks:
        os.kill(generator.choice(ranks), signal.SIGKILL)
    else:
        for number in (process.pid, *ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    process.communicate()
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """Ids of the child processes."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def checkpoints(run: Path) -> dict[str, dict[str, Any]]:
    """Name -> digest of the tensors and state without times, of every checkpoint."""
    contents: dict[str, dict[str, Any]] = {}
    for path in sorted((run / "train" / "checkpoints").glob("step-*/state.json")):
        contents[path.parent.name] = json.loads(path.read_text())
        del contents[path.parent.name]["state"]["seconds"]
    return contents


def lines(run: Path) -> list[dict[str, object]]:
    """The lines of metrics, without the values that depend on the machine."""
    records = map(json.loads, (run / "train" / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in MACHINE_DEPENDENT} for record in records]


def compare(run: Path, undisturbed: Path, when: str) -> int:
    """The number of checkpoints that differ from those of the undisturbed training."""
    expected = checkpoints(undisturbed)
    # A validation that was interrupted is recorded in its checkpoint only when the training is resumed.
    differing = [
        name
        for name, content in checkpoints(run).items()
        if content != expected.get(name) and (content["state"]["validated"] or not expected[name]["state"]["validated"])
    ]
    if differing:
        print(f"{run.name}, {when}: DIFFERS at {', '.join(differing)}", flush=True)
    return len(differing)


if __name__ == "__main__":
    main()

"""Kills a training at random moments, starts it again, and compares every checkpoint with those of an undisturbed one, bit for bit.

    python benchmarks/kill_training.py --times 30
    python benchmarks/kill_training.py --times 300 --seed 7 --worlds 2 4

For each number of ranks: one undisturbed training, then one that is killed again and again. A kill is kill -9 of all ranks and of torchrun,
or of one rank alone (torchrun then ends the others), after a time drawn from the length of a start and some steps. After each kill
the same command runs again. All checkpoints are kept, so each kill is judged by itself: whatever the training has written by then
must be what the undisturbed one wrote at the same step, tensors and state.
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
OF_THE_MACHINE = ("time", "train/tokens_per_second", "train/data_wait", "train/memory_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30, help="kills, over all numbers of ranks")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    drawn, failed = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        random_dataset.write(folder / "data", counts=(400, 20), vocab_size=300)
        for number, world in enumerate(given.worlds):
            times = given.times // len(given.worlds) + (number < given.times % len(given.worlds))
            failed += kill_again_and_again(folder, world, times, drawn)
    sys.exit(failed > 0)


def kill_again_and_again(folder: Path, world: int, times: int, drawn: random.Random) -> int:
    """Kills trainings on `world` ranks `times` times; returns how often something differed."""
    began = time.monotonic()
    whole = folder / f"whole-{world}"
    finish(start(folder, whole, world))
    length = time.monotonic() - began
    print(f"{world} rank(s), undisturbed: {length:.1f} s, {len(checkpoints(whole))} checkpoints", flush=True)
    moments: Counter[str] = Counter()
    killed, runs, wrong = 0, 0, 0
    while killed < times:
        runs += 1
        run = folder / f"killed-{world}-{runs}"
        while killed < times:
            process, since = start(folder, run, world), time.monotonic()
            before, left = len(checkpoints(run)), drawn.uniform(0, 1.2 * length)
            try:
                process.wait(left)
                length = length if before else time.monotonic() - since  # the machine may be less busy than it was
                break
            except subprocess.TimeoutExpired:
                alone = world > 1 and drawn.random() < 0.5
                kill(process, alone, drawn)
                killed += 1
            found = checkpoints(run)
            moments["before the first step" if not found else "among the steps" if len(found) > before else "on the way back"] += 1
            moments["one rank alone" if alone else "all at once"] += 1
            wrong += report(run, whole, f"kill {killed}")
        finish(start(folder, run, world))
        wrong += report(run, whole, "the end")
        wrong += lines(run) != lines(whole)
    said = ", ".join(f"{count} {what}" for what, count in sorted(moments.items()))
    print(f"{world} rank(s): killed {killed} times in {runs} training(s) ({said}); differences: {wrong}", flush=True)
    return wrong


def start(folder: Path, run: Path, world: int) -> "subprocess.Popen[bytes]":
    """The command, in a process group of its own."""
    arguments = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    command = [sys.executable, *torchrun, str(ROOT / "train"), "--dataset.dir", str(folder / "data"), "--run.dir", str(run), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the command to end well."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"train ended with {process.returncode}:\n{errors.decode()}")


def kill(process: "subprocess.Popen[bytes]", alone: bool, drawn: random.Random) -> None:
    """kill -9 of one rank, and what torchrun makes of it; or of everything. Returns when all are gone."""
    ranks = children(process.pid)
    if alone and ranks:
        os.kill(drawn.choice(ranks), signal.SIGKILL)
    else:
        for number in (process.pid, *ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    process.communicate()
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """The processes that one has started."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def checkpoints(run: Path) -> dict[str, object]:
    """Name -> digest of the tensors and the state, times left out, of every checkpoint that is there."""
    found = {}
    for path in sorted((run / "train" / "checkpoints").glob("step-*/state.json")):
        state = json.loads(path.read_text())
        del state["seconds"]
        found[path.parent.name] = state
    return found


def lines(run: Path) -> list[dict[str, object]]:
    """The lines of metrics, without what differs from one run to the next anyway."""
    records = map(json.loads, (run / "train" / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in OF_THE_MACHINE} for record in records]


def report(run: Path, whole: Path, when: str) -> int:
    """How many checkpoints differ from those of the undisturbed training."""
    expected, found = checkpoints(whole), checkpoints(run)
    # A validation that was cut short is noted in the checkpoint when the training goes on.
    done = {name: state for name, state in found.items() if state["validated"] or not expected[name]["validated"]}  # type: ignore[index]
    wrong = [name for name, state in done.items() if state != expected.get(name)]
    if wrong:
        print(f"{run.name}, {when}: DIFFERS at {', '.join(wrong)}", flush=True)
    return len(wrong)


if __name__ == "__main__":
    main()

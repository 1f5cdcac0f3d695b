"""Trains while the MLflow store fails: the same training with status 0, in little more time, and nothing is lost after a sync."""

import random
import sqlite3
from pathlib import Path

from tests import mlflow_faults

from . import world as worlds
from .readers import READERS
from .verdict import Outcome, Verdict, judge
from .world import World

MORE_SECONDS = 45
"""What a store that fails may cost on a busy machine: the deadline of 5 s at the end of a stage, and the starts of processes."""
_WORDS = READERS["train-resume"].words
_STORE = "sqlite:///healthy.db"
_VOLATILE = ("seconds", "tokens_per_second", "memory_mb", "data_wait")


def prepare(world: World) -> None:
    """Trains with a store that works."""
    world.restore()
    ended = world.must(*_WORDS, "--tracking.uri", _STORE)
    points = _points(world.folder / "healthy.db")
    world.expected["mlflow points"] = {str(point): "" for point in points}
    world.expected["mlflow seconds"] = {"seconds": str(ended.seconds)}
    world.restore()


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One mode of failing."""
    mode = mlflow_faults.MODES[number % len(mlflow_faults.MODES)]
    words = [*_WORDS, "--tracking.uri"]
    with mlflow_faults.fault(mode) as uri:
        ended = world.run([*words, uri], deadline=240)
    verdict = judge(ended, _differing(world), f"{mode}: {' '.join(words)} {uri}")
    limit = float(world.expected["mlflow seconds"]["seconds"]) + MORE_SECONDS
    if verdict.outcome is not Outcome.OK:
        outcome = Outcome.LOST if verdict.outcome is Outcome.NAMED else verdict.outcome
        return Verdict(outcome, f"the record stopped the work: {verdict.detail}")
    if ended.seconds > limit:
        return Verdict(Outcome.HANG, f"{verdict.detail}\ntook {ended.seconds:.0f} s, without the fault {limit - MORE_SECONDS:.0f} s")
    synced = world.run(["pipeline", "sync", "--config", "config.toml", "--run.dir", "stopped", "--tracking.uri", _STORE], deadline=240)
    store = world.folder / "healthy.db"
    actual = {str(point): "" for point in _points(store)} if store.exists() else {}
    missing = [name for name in world.expected["mlflow points"] if name not in actual]
    if mode != "restarted" and (synced.status or missing):
        return Verdict(
            Outcome.LOST, f"{mode}: after a sync (status {synced.status}) {len(missing)} points are missing: {missing[:5]}\n{synced.errors}"
        )
    return verdict


def _differing(world: World) -> list[str]:
    actual = worlds.fingerprint(world.folder, READERS["train-resume"].writes)
    expected = world.expected["train-resume"]
    ours = [{name: value for name, value in result.items() if "/tracking" not in name} for result in (expected, actual)]
    return worlds.differences(*ours)


def _points(store: Path) -> list[tuple[str, int, float]]:
    with sqlite3.connect(store) as connection:
        rows = connection.execute("select distinct key, step, value from metrics").fetchall()
    return sorted(row for row in rows if not row[0].endswith(_VOLATILE))

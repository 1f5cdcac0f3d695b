"""Starts two commands beside each other that read and write the same files: each gives its usual result or one error line."""

import random
import time
from typing import NamedTuple

from . import world as worlds
from .readers import READERS
from .verdict import Outcome, Verdict, judge
from .world import GENERATE, World

_REBUILD = ("preprocess", "--config", "config.toml", "--tokenizer.vocab_size", "300", "--rebuild")
_BUILD = ("preprocess", "--config", "config.toml", "--dataset.dir", "new")


class Case(NamedTuple):
    """Two commands; the first is judged by a reader's undisturbed result, if it has one."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    reader: str = ""
    again: bool = True
    """Whether the first has its usual result when it is run again afterwards."""


CASES = (
    Case(READERS["train-resume"].words, READERS["train-resume"].words, "train-resume"),
    Case(READERS["train-resume"].words, _REBUILD, "train-resume", again=False),
    Case(READERS["evaluate-data"].words, _REBUILD, "evaluate-data", again=False),
    Case(READERS["inspect"].words, _REBUILD, again=False),
    Case(READERS["verify"].words, _REBUILD, again=False),
    Case((*GENERATE, "job.jsonl"), (*GENERATE, "job.jsonl"), "generate-resume"),
    Case(READERS["preprocess-resume"].words, READERS["preprocess-resume"].words, "preprocess-resume"),
    Case(_BUILD, _BUILD),
    Case(_REBUILD, _REBUILD),
    Case(
        READERS["evaluate-text"].words,
        ("train", "--config", "config.toml", "--rebuild", "--train.lr", "0.01"),
        "evaluate-text",
        again=False,
    ),
)


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One pair, the second command a random moment after the first."""
    case = CASES[number % len(CASES)]
    delay = generator.choice([0.0, generator.uniform(0, 0.5), generator.uniform(0, 2)])
    first = world.start([*case.first])
    time.sleep(delay)
    second = world.start([*case.second])
    ends = first.end(), second.end()
    what = f"{' '.join(case.first)}   BESIDE   {' '.join(case.second)} ({delay:.2f} s later)"
    for ended, words in zip(ends, (case.first, case.second), strict=True):
        same = case.reader and words == case.first and not (case.first == case.second and sum(end.status == 0 for end in ends) == 2)
        differing = _differing(world, case.reader, ended.out) if same and ended.status == 0 else []
        verdict = judge(ended, differing, what)
        if verdict.outcome not in (Outcome.OK, Outcome.NAMED):
            return verdict
    if case.again:
        again = world.run([*case.first])
        verdict = judge(again, _differing(world, case.reader, again.out) if case.reader else [], f"{what}; then the first again")
        if again.status != 0 or verdict.outcome is Outcome.DIFFERENT:
            return Verdict(Outcome.LOST, verdict.detail)
    return verdict


def _differing(world: World, reader: str, out: str) -> list[str]:
    return worlds.differences(world.expected[reader], worlds.fingerprint(world.folder, READERS[reader].writes, out))

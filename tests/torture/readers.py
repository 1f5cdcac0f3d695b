"""The commands that read what other commands have written, and the files that each of them reads."""

import random
from dataclasses import dataclass
from pathlib import Path

from . import world as worlds
from .verdict import Verdict, judge
from .world import GENERATE, World

_CONFIG = ("--config", "config.toml")
_MODEL = ("run/model/*",)
_DATASET = ("data/*.*", "data/fixed/*", "data/sentences/*", "cache/**/*")


@dataclass(frozen=True)
class Reader:
    """A command, the files that it reads (patterns), and the files and folders that it writes."""

    words: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()


READERS = {
    "preprocess": Reader(("preprocess", *_CONFIG), ("data/*.*",), ("data",)),
    "preprocess-resume": Reader(
        ("preprocess", *_CONFIG, "--dataset.dir", "data2"), (".data2.building/**/*", ".data2.lock"), ("data2", ".data2.building")
    ),
    "verify": Reader(("preprocess", "verify", "data"), ("data/*.*", "data/fixed/*", "data/sentences/*", "data/report/*")),
    "inspect": Reader(("preprocess", "inspect", "data"), ("data/*.*", "data/fixed/*", "data/sentences/*")),
    "train": Reader(("train", *_CONFIG), ("run/train/*.json*", "run/train/checkpoints/**/*", *_MODEL), ("run/train", "run/model")),
    "train-resume": Reader(
        ("train", *_CONFIG, "--run.dir", "stopped"), ("stopped/train/*.json*", "stopped/train/checkpoints/**/*", *_DATASET), ("stopped",)
    ),
    "evaluate-data": Reader(("serve", "evaluate", "--model", "run/model", "--data", "data", *_CONFIG, "--out", "-"), (*_MODEL, *_DATASET)),
    "evaluate-text": Reader(("serve", "evaluate", "--model", "run/model", "--text", "corpus/1.txt", "--out", "-"), _MODEL),
    "evaluate": Reader(("serve", "evaluate", *_CONFIG), (*_MODEL, "data/manifest.json", "run/evaluate/*.json"), ("run/evaluate",)),
    "generate": Reader(("serve", "generate", *_CONFIG), (*_MODEL, "run/generate/*.json*"), ("run/generate",)),
    "generate-resume": Reader((*GENERATE, "job.jsonl"), (*_MODEL, ".job.jsonl.parts/*"), ("job.jsonl", ".job.jsonl.parts")),
    "score": Reader(("serve", "score", "--model", "run/model", "--input", "corpus/1.txt"), _MODEL),
    "next": Reader(("serve", "next", "--model", "run/model", "--prompt", "the cat"), _MODEL),
    "compare": Reader(
        ("pipeline", "compare", "run", "stopped"),
        ("run/train/*.json", "run/evaluate/*.json", "run/*.json", "run/config.toml", "run/model/config.json", "stopped/train/*.json"),
    ),
}  # fmt: skip
SETTINGS = ("generation_config.json", "config.toml")
"""Files that people edit: another result after another value is what they are for."""


def prepare(world: World) -> None:
    """Runs every reader on undamaged files, and keeps the result."""
    if "train-resume" in world.expected:
        return
    for name, reader in READERS.items():
        world.restore()
        ended = world.must(*reader.words)
        world.expected[name] = worlds.fingerprint(world.folder, reader.writes, ended.out)
    world.restore()


def choose(world: World, generator: random.Random, suffixes: tuple[str, ...] = ()) -> tuple[str, Path]:
    """A reader, and one of the files that it reads (with one of the suffixes, if any)."""
    while True:
        name = generator.choice(list(READERS))
        pattern = generator.choice(READERS[name].reads)
        paths = [path for path in sorted(world.folder.glob(pattern)) if path.is_file() and (not suffixes or path.suffix in suffixes)]
        if paths:
            return name, generator.choice(paths)


def judge_reader(world: World, name: str, damaged: Path, what: str) -> Verdict:
    """Runs a reader and judges how it ends; the damaged file itself may stay as it is."""
    reader = READERS[name]
    ended = world.run([*reader.words])
    expected, actual = world.expected[name], worlds.fingerprint(world.folder, reader.writes, ended.out)
    free = {str(damaged.relative_to(world.folder))}
    if damaged.name == "samples.jsonl":
        free.add(str(damaged.with_suffix(".html").relative_to(world.folder)))
    if damaged.name in SETTINGS:
        free = {*expected, *actual}
    expected, actual = ({key: value for key, value in result.items() if key not in free} for result in (expected, actual))
    return judge(ended, worlds.differences(expected, actual), f"{what}; {' '.join(reader.words)}")

"""Makes a dataset of a corpus, checks it, shows it, and shares it.

    python -m preprocess [build] [--config C] [--rebuild] [--section.key value ...]
    python -m preprocess verify DIR [--repair [--config C] [--section.key value ...]]
    python -m preprocess inspect DIR [--rows N] [--split S] [--view fixed|sentences]
    python -m preprocess push DIR OWNER/NAME [--private]

build    The dataset of a configuration (configs/quickstart.toml unless given). Run again with nothing changed it says so and does
         nothing; interrupted, it goes on; where something else was made before, --rebuild replaces it.
verify   Compares every file with its digest; --repair makes damaged ones anew from the corpus, so it needs the same configuration.
inspect  Prints how much there is, and the first rows (3 unless given) of each view of each split as text.
push     Uploads the dataset to the Hugging Face hub, for those who may see it: everybody, or only its owner (--private).

    python -m preprocess                                                 # the built-in corpus, into data/quickstart
    python -m preprocess --config configs/wsj-articles.toml --corpus.train FOLDER --corpus.on_bad_text skip
    python -m preprocess inspect data/quickstart --rows 10 --view sentences

`python -m pipeline config --explain` lists all settings. Exit status: 0 done; 1 it failed; 2 the request was wrong.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from packlm import dataset, tracking
from packlm.base import errors
from packlm.base.errors import PacklmError, RequestError, did_you_mean
from packlm.base.log import setup
from packlm.config import Config, load, split_arguments
from packlm.text.encoder import Encoder

from . import inspect_dataset, report
from .build import stage as building
from .build.stage import Built
from .executors.workers import LESS_MEMORY
from .push import push

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class Command:
    """What a command takes besides `--config` and settings."""

    places: tuple[str, ...] = ()
    """Arguments that must be there, as the usage names them."""
    flags: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """Options that a value follows."""


COMMANDS = {
    "build": Command(flags=("--rebuild",)),
    "verify": Command(("DIR",), flags=("--repair",)),
    "inspect": Command(("DIR",), values=("--rows", "--split", "--view")),
    "push": Command(("DIR", "OWNER/NAME"), flags=("--private",)),
}


@dataclass
class Arguments:
    """A command line, taken apart."""

    command: str
    file: Path | None
    settings: list[str]
    places: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)


def main() -> None:
    setup()
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words) or words[:1] == ["help"]:
        print(__doc__, end="")
        return
    given = read(words)
    if (given.file or given.settings) and not (given.command == "build" or "--repair" in given.flags):
        raise RequestError(f"{given.command} reads no configuration: leave out {given.settings[0] if given.settings else '--config'}")
    if given.command == "build":
        build(load(given.file, given.settings), rebuild="--rebuild" in given.flags)
    elif given.command == "verify":
        verify(_dataset(given.places[0]), load(given.file, given.settings) if "--repair" in given.flags else None)
    elif given.command == "inspect":
        rows, split, view = given.values.get("--rows", "3"), given.values.get("--split"), given.values.get("--view")
        inspect(_dataset(given.places[0]), _number(rows), split, view)
    else:
        print(push(_dataset(given.places[0]), given.places[1], private="--private" in given.flags))


def read(words: list[str]) -> Arguments:
    """Takes a command line apart; `RequestError` with what was probably meant where it makes no sense."""
    file, settings, rest = split_arguments(words)
    name = rest.pop(0) if rest and not rest[0].startswith("-") else "build"
    if name not in COMMANDS:
        raise RequestError(f"unknown command {name!r}; {did_you_mean(name, COMMANDS, 'there are ' + ', '.join(COMMANDS))}")
    command, given = COMMANDS[name], Arguments(name, file, settings)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option in command.values:
            if not equals and not rest:
                raise RequestError(f"{option} needs a value")
            given.values[option] = value if equals else rest.pop(0)
        elif option in command.flags and not equals:
            given.flags.add(option)
        elif option.startswith("-"):
            known = [*command.flags, *command.values, "--help", *(["--config"] if name in ("build", "verify") else [])]
            elsewhere = [other for other in COMMANDS if option in COMMANDS[other].flags + COMMANDS[other].values]
            hint = (
                f"it belongs to {elsewhere[0]}" if elsewhere else did_you_mean(option, known, "settings are given as --section.key value")
            )
            raise RequestError(f"{name}: unknown argument {option!r}; {hint}")
        else:
            given.places.append(option + equals + value)
    if len(given.places) != len(command.places):
        wanted, got = " ".join(command.places) or "no argument", " ".join(given.places) or "none"
        raise RequestError(f"{name} takes {wanted}, got {got}; see python -m preprocess --help")
    return given


def build(config: Config, rebuild: bool) -> None:
    """Makes the dataset, unless it is there, and says what came out."""
    built = building.build(config, rebuild)
    if built.seconds is not None:
        log.info("%s", inspect_dataset.table(built.manifest))
        log.info("%s: made in %s", config.dataset.dir, inspect_dataset.rate(built.manifest, built.seconds))
        record(config, built, fresh=rebuild)


def record(config: Config, built: Built, fresh: bool) -> None:
    """Puts the dataset just made into MLflow: its numbers, its manifest and its report, and itself as what the stage made."""
    manifest = built.manifest
    with tracking.stage(config, "preprocess", fresh) as recorder:
        recorder.params(
            {
                "corpus_digest": manifest.digests["corpus"],
                "content_digest": manifest.digests["content"],
                "tokenizer_digest": manifest.digests["tokenizer"],
                "tokenizer_kind": config.tokenizer.kind,
                "vocab_size": manifest.vocab_size,
                "lossless": manifest.lossless,
                "counts": "; ".join(f"{reason}: {count:,}" for reason, count in manifest.counts.items()),
            }
        )
        metrics = {"seconds": built.seconds or 0.0}
        for name, split in manifest.splits.items():
            for key in ("documents", "sentences", "tokens", "words", "bytes"):
                metrics[f"{name}_{key}"] = float(getattr(split, key))
            metrics[f"{name}_unknown_rate"] = split.unknown / split.tokens
        recorder.metrics(metrics)
        recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), "preprocess")
        recorder.artifact(config.dataset.dir / "manifest.json")
        for path in sorted((config.dataset.dir / report.NAME).glob("*")):
            recorder.artifact(path, report.NAME)


def verify(folder: Path, repair: Config | None) -> None:
    """Compares every file with the manifest's digests; `PacklmError` naming those that differ, or makes them anew where told how."""
    lines = [f"{folder / name}: {what}" for name, what in dataset.damaged(folder, dataset.read_manifest(folder)).items()]
    if lines and repair:
        for line in lines:
            log.warning("%s", line)
        for name in building.repair(repair, folder):
            log.info("%s: made anew", folder / name)
    elif lines:
        several = f"{len(lines)} files are" if len(lines) > 1 else "1 file is"
        remedy = f"`python -m preprocess verify {folder} --repair --config C`, C being what it was made with"
        raise PacklmError("\n".join([*lines, f"{several} damaged; made anew by {remedy}"]))
    print(f"{folder}: every file is as it was made")


def inspect(folder: Path, count: int, split: str | None, view: str | None) -> None:
    """Prints the table, and the first rows of each view of each split, or of the ones asked for, as text."""
    manifest = dataset.read_manifest(folder)
    if view is not None and view not in dataset.VIEWS:
        raise RequestError(f"--view: {view!r} is none; {did_you_mean(view, dataset.VIEWS, 'there are ' + ' and '.join(dataset.VIEWS))}")
    splits = [split] if split is not None else [*manifest.splits]
    found = [(name, manifest.split(name)) for name in splits]
    encoder = Encoder.load(folder)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(inspect_dataset.table(manifest))
    for name, held in found if count else []:
        for wanted in dataset.VIEWS:
            if view in (None, wanted):
                there = sum(shard.rows for shard in held.files[wanted].values())
                print(f"\n{name}, {wanted}: {min(count, there):,} of {there:,} rows")
                for text in inspect_dataset.rows(folder, manifest, encoder, wanted, name, count):
                    print(f"  {text}")


def _dataset(place: str) -> Path:
    """The folder of a dataset; `RequestError` where there is none, naming those nearby."""
    folder = Path(place)
    if (folder / "manifest.json").exists():
        return folder
    if folder.is_dir():
        inside = sorted(str(path.parent) for path in folder.glob("*/manifest.json"))
        hint = f"did you mean {inside[0]}?" if inside else "`python -m preprocess` makes one"
        raise RequestError(f"{folder}: no dataset here (no manifest.json); {hint}")
    beside = [str(path.parent) for path in folder.parent.glob("*/manifest.json")] if folder.parent.is_dir() else []
    hint = did_you_mean(str(folder), beside, "`python -m preprocess` makes a dataset")
    raise RequestError(f"{folder}: there is no such folder; {hint}")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise RequestError(f"--rows: a whole number is wanted, got {text!r}")
    return int(text)


def run() -> None:
    """Runs `main`; what goes wrong becomes a line on standard error and the exit status."""
    errors.run(main, LESS_MEMORY)

"""The commands of preprocessing: `python -m preprocess [build|verify|inspect|push]`."""

import logging
import sys
from pathlib import Path
from typing import Literal

import click

from packlm.base import escape, output_paths
from packlm.base.errors import PacklmError, RequestError, did_you_mean
from packlm.commands import ConfigArguments, Group, run

from .executors.workers import LESS_MEMORY

log = logging.getLogger("packlm")

SECTIONS = ("run", "corpus", "tokenizer", "dataset", "tracking")


class DatasetFolder(click.ParamType):
    """The folder of a dataset; where there is none, the error names datasets nearby."""

    name = "DIR"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(value)
        if (folder / "manifest.json").exists():
            return folder
        if folder.is_dir():
            inside = sorted(str(path.parent) for path in folder.glob("*/manifest.json"))
            hint = f"did you mean {inside[0]}?" if inside else "`packlm preprocess` makes one"
            raise RequestError(f"{folder}: no dataset here (no manifest.json); {hint}")
        siblings = [str(path.parent) for path in folder.parent.glob("*/manifest.json")] if folder.parent.is_dir() else []
        hint = did_you_mean(str(folder), siblings, "`packlm preprocess` makes a dataset")
        raise RequestError(f"{folder}: there is no such folder; {hint}")


@click.group(cls=Group, default="build")
def cli() -> None:
    """Turn a corpus into a dataset, verify it, look at it, share it.

    Without a verb it builds: `packlm preprocess --corpus.train FOLDER` is `packlm preprocess build --corpus.train FOLDER`.
    """


@cli.command(
    sections=SECTIONS,
    example="packlm preprocess --config wsj-articles --corpus.train FOLDER --corpus.on_bad_text skip",
    less_memory=LESS_MEMORY,
)
@click.option("--rebuild", is_flag=True, help="Replace a dataset that was built with other settings or another corpus.")
def build(arguments: ConfigArguments, rebuild: bool) -> None:
    """Build the dataset of a configuration in `dataset.dir`.

    Run again with nothing changed it does nothing; interrupted, it resumes; with other settings or another corpus it stops and lists
    what changed.
    """
    config = arguments.load()

    from packlm import fine_tuning

    config = fine_tuning.resolve(config)  # the tokenizer of a model that is to be continued

    from packlm import tracking

    from . import advice, inspect_dataset, record
    from .build import stage

    built = stage.build(config, rebuild)
    if built.seconds is not None:
        log.info("%s", inspect_dataset.table(built.manifest))
        log.info("%s: made in %s", config.dataset.dir, inspect_dataset.rate(built.manifest, built.seconds))
        for line in advice.advice(config, built.manifest):
            log.warning("%s", line)
        record.record(config, built, fresh=rebuild)
    elif tracking.is_unsent(config, "preprocess"):
        record.record(config, built, fresh=False)


@cli.command(sections=SECTIONS, example="packlm preprocess verify data/quickstart --repair --config quickstart")
@click.argument("folder", type=DatasetFolder(), metavar="DIR")
@click.option("--repair", is_flag=True, help="Rebuild damaged files from the corpus; takes the configuration of the build.")
def verify(arguments: ConfigArguments, folder: Path, repair: bool) -> None:
    """Compare every file of a dataset with the digest in its manifest, and name those that differ."""
    if arguments != ConfigArguments() and not repair:
        raise RequestError("verify reads no configuration without --repair: remove --config and the settings, or add --repair")
    config = arguments.load() if repair else None

    from packlm import dataset, fine_tuning

    from .build import stage

    config = fine_tuning.resolve(config) if config else None
    lines = [f"{folder / name}: {problem}" for name, problem in dataset.damaged(folder, dataset.read_manifest(folder)).items()]
    if lines and config:
        for line in lines:
            log.warning("%s", line)
        for name in stage.repair(config, folder):
            log.info("%s: rebuilt", folder / name)
    elif lines:
        count = f"{len(lines)} files are" if len(lines) > 1 else "1 file is"
        remedy = f"`packlm preprocess verify {folder} --repair --config C`, with the configuration of the build"
        raise PacklmError(escape.lines(*lines, f"{count} damaged; repair with {remedy}"))
    print(f"{folder}: every file matches its digest")


@cli.command(example="packlm preprocess inspect data/quickstart --rows 10 --view sentences")
@click.argument("folder", type=DatasetFolder(), metavar="DIR")
@click.option("--rows", "count", type=click.IntRange(min=0), default=3, help="Rows of each view of each split.")
@click.option("--split", help="One split only.")
@click.option("--view", type=click.Choice(["fixed", "sentences"]), help="One view only.")
def inspect(folder: Path, count: int, split: str | None, view: Literal["fixed", "sentences"] | None) -> None:
    """Print the size of a dataset, and its first rows as text."""
    from packlm import dataset
    from packlm.text.encoder import Encoder

    from . import inspect_dataset

    manifest = dataset.read_manifest(folder)
    splits = {name: manifest.split(name) for name in ([split] if split else manifest.splits)}
    encoder = Encoder.load(folder, manifest.digests["tokenizer"])
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(inspect_dataset.table(manifest))
    for name, content in splits.items() if count else ():
        for each in dataset.VIEWS if view is None else [view]:
            total = sum(shard.rows for shard in content.files[each].values())
            print(f"\n{name}, {each}: {min(count, total):,} of {total:,} rows")
            for text in inspect_dataset.rows(folder, manifest, encoder, each, name, count):
                print(f"  {text}")


@cli.command(example="packlm preprocess ngrams data/quickstart --order 3 --out kn3.arpa")
@click.argument("folder", type=DatasetFolder(), metavar="DIR")
@click.option("--order", type=click.IntRange(1, 20), default=5, help="Length of the n-grams.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The ARPA file.")
def ngrams(folder: Path, order: int, out: Path) -> None:
    """Count the n-grams of the training split, smoothed by Kneser and Ney's method, and write them as an ARPA file."""
    output_paths.check({"--out": out}, [])

    from . import ngrams

    print(ngrams.write(folder, order, out))


@cli.command("push", example="packlm preprocess push data/quickstart me/quickstart --private")
@click.argument("folder", type=DatasetFolder(), metavar="DIR")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Only the owner may read it.")
def push_dataset(folder: Path, repository: str, private: bool) -> None:
    """Upload a dataset to the Hugging Face hub."""
    from .push import push

    print(push(folder, repository, private=private))


def main() -> None:
    """The entry point `python -m preprocess`."""
    run(cli, "python -m preprocess")

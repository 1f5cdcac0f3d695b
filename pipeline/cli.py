"""The commands over all stages: `python -m pipeline new|run|config|compare|sweep|sync|fetch`."""

import os
from pathlib import Path

import click

from packlm import config as configuration
from packlm.base import output_paths
from packlm.base.errors import RequestError, did_you_mean
from packlm.commands import ConfigArguments, Group, run
from packlm.config import Config, recipes

SECTIONS = tuple(Config.model_fields)


@click.group(cls=Group)
def cli() -> None:
    """Run all stages, and compare their results."""


@cli.command(example="packlm new articles\npacklm new book.txt --out book.toml")
@click.argument("folder", metavar="FOLDER|FILE")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The recipe to write.  [default: NAME.toml, for the folder NAME]"
)
@click.option("--rebuild", is_flag=True, help="Replace an earlier recipe.")
def new(folder: str, out: Path | None, rebuild: bool) -> None:
    """Look at a folder of text, and write a commented recipe for it.

    The recipe has what fits the files (format, encoding, documents, sentences, language), the size of the corpus (vocabulary, width,
    dropout, length of the training), and prompts from held-out documents. Nothing in the folder is changed.
    """
    path = Path(folder)
    if not os.path.lexists(path):
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        raise RequestError(f"{folder}: no such file or folder; {did_you_mean(path.name, beside, 'correct the path')}")
    if path.is_dir() and not any(names for _, _, names in os.walk(path)):
        raise RequestError(f"{folder}: the folder is empty; put text files into it")
    out = out or Path(f"{recipes.name_of(path)}.toml")
    output_paths.check({"--out": out}, [folder])
    if out.exists() and not rebuild:
        raise RequestError(f"{out}: there is a recipe already; replace it with --rebuild, or give another file with --out")

    from .new import command

    print(command.run(folder, out))


@cli.command("run", sections=SECTIONS, example="packlm run --config ptb-fast --corpus.train FILE --run.name mine --train.processes 2")
@click.option("--rebuild", is_flag=True, help="Replace the dataset and the training of an earlier run.")
def run_stages(arguments: ConfigArguments, rebuild: bool) -> None:
    """Run preprocess, train, evaluate and generate.

    A stage that is complete is skipped, one that was interrupted resumes, and the first one that fails ends the run. At the end a summary
    names the perplexity, samples, and where everything is.
    """
    config = arguments.load()

    from packlm import fine_tuning

    from . import stages

    config = fine_tuning.resolve(config)  # now: the stages get every setting as if it had been set
    stages.run_all(config, rebuild=rebuild)
    print(stages.summary(config))


@cli.command(sections=SECTIONS, example="packlm config --config ptb-fast --train.lr 0.01 --explain > mine.toml")
@click.option("--explain", is_flag=True, help="With the meaning of every setting.")
def config(arguments: ConfigArguments, explain: bool) -> None:
    """Print the resolved configuration as TOML that `--config` reads back."""
    print(configuration.to_toml(arguments.load(), explain), end="")


@cli.command("compare", sections=("tracking",), example="packlm compare runs/quickstart runs/mine")
@click.argument("runs", nargs=-1, metavar="RUN...")
def compare_runs(arguments: ConfigArguments, runs: tuple[str, ...]) -> None:
    """Print the settings that differ between runs, and their numbers, side by side.

    A RUN is a folder (runs/NAME), or the id or name of a run in MLflow.
    """
    settings = arguments.load().tracking

    from . import compare

    print(compare.run(list(runs), settings))


@cli.command(
    sections=SECTIONS,
    example="packlm sweep --config ptb-fast --run.name ptb-sweep --space space.toml --trials 50\n"
    "packlm sweep --run.name mine-sweep --dataset.dir data/mine --space space.toml --trials 30 --jobs 2",
)
@click.option("--space", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Settings to search, as TOML.")
@click.option("--trials", type=click.IntRange(1, 1_000_000), default=20, help="Number of trials.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Trials at the same time.  [default: 1, or one for each GPU]")
@click.option("--no-pruning", is_flag=True, help="Let every trial come to its end, also those that are left behind by the others.")
def sweep(arguments: ConfigArguments, space: Path, trials: int, jobs: int | None, no_pruning: bool) -> None:
    """Search for better settings, training after training.

    Optuna chooses the values of each trial by the validation losses of those before. Run again, a sweep that was stopped continues; with a
    larger --trials it goes on. docs/sweep.md says what a search space looks like.
    """
    config = arguments.load()

    from packlm import fine_tuning

    from .sweep import command
    from .sweep import space as search_space

    command.run(fine_tuning.resolve(config), search_space.read(space), trials, jobs, not no_pruning)


@cli.command(sections=("run", "tracking"), example="packlm sync --config quickstart")
def sync(arguments: ConfigArguments) -> None:
    """Send to MLflow what it does not have of any stage of a run: metrics, settings, tables, files, and how the stages ended."""
    config = arguments.load()

    from packlm import tracking

    tracking.sync(config)


@cli.command(
    example="packlm train --dataset.dir $(packlm fetch s3://bucket/data/news)\n"
    "packlm score --model $(packlm fetch s3://bucket/models/news) --input items.tsv"
)
@click.argument("address")
def fetch(address: str) -> None:
    """Copy a dataset or a model folder from S3 or another storage into the user's cache, and print where it is.

    What has been copied once is not copied again, and every file is held against its digest.
    """
    from packlm.fetch import fetch

    print(fetch(address))


def main() -> None:
    """The entry point `python -m pipeline`."""
    run(cli, "python -m pipeline")

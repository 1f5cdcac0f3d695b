"""The command of training: `python train`, or `torchrun --nproc-per-node 4 train`."""

import os
from pathlib import Path

import click

from packlm.base import output_paths
from packlm.base.errors import RequestError
from packlm.commands import Command, ConfigArguments, run


@click.command(
    "train",
    cls=Command,
    sections=("run", "dataset", "model", "train", "evaluate", "tracking"),
    example="packlm train --config ptb-fast --train.max_steps 100\n"
    "torchrun --nproc-per-node 4 --max-restarts 3 -m packlm.stages.train --config ptb-fast",
    less_memory="resume with --train.accumulate N, which takes each batch in N passes, with the same result",
)
@click.option("--rebuild", is_flag=True, help="Train anew, and replace the training and model in `run.dir` at the end.")
@click.option(
    "--dry-run", is_flag=True, help="Print the model's size, cost, batches and memory, and the first batch as text; train nothing."
)
@click.option("--profile", is_flag=True, help="Write a trace of some steps to `run.dir`/train/profile.")
def cli(arguments: ConfigArguments, rebuild: bool, dry_run: bool, profile: bool) -> None:
    """Train a language model on a dataset.

    Reads the dataset in `dataset.dir`, which `packlm preprocess` makes; writes checkpoints and metrics to `run.dir`/train, and the model
    to `run.dir`/model. Run again it resumes from its last checkpoint. Under torchrun every process trains on its share of each batch.
    """
    config = arguments.load()

    from packlm import fine_tuning

    config = fine_tuning.resolve(config)

    from packlm import dataset

    manifest = dataset.read_manifest(config.dataset.dir)

    from . import stage

    if dry_run:
        if description := stage.describe(config, manifest):
            print(description)
        return
    # A process that torchrun starts again, after the new training has replaced the old one, must not begin another.
    first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    stage.run(config, manifest, rebuild and (first_start or (config.run.dir / "rebuild").exists()), profile)


@click.command(
    "average",
    cls=Command,
    sections=("run", "dataset", "model", "train", "evaluate"),
    example="packlm average --config ptb-fast --last 5 --out averaged\npacklm average --run.name mine --greedy --out averaged",
)
@click.option("--last", type=click.IntRange(min=2), help="Number of last checkpoints to average.")
@click.option("--greedy", is_flag=True, help="Average those checkpoints that improve the validation perplexity (greedy soup).")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new model folder.")
def average(arguments: ConfigArguments, last: int | None, greedy: bool, out: Path) -> None:
    """Average the weights of several checkpoints of a training, as a new model folder.

    Takes the configuration of the training, whose `train.keep` says how many checkpoints there are.
    """
    if greedy == (last is not None):
        raise RequestError("average: give either --last N or --greedy")
    config = arguments.load()
    output_paths.check_model_folder("--out", out, config.run.dir / "model")

    from packlm import dataset, fine_tuning

    from .results import average_checkpoints

    config = fine_tuning.resolve(config)
    average_checkpoints.run(config, dataset.read_manifest(config.dataset.dir), out, last)


def main() -> None:
    """The entry point `python train`."""
    run(cli, "python train")

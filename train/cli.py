"""The command of training: `python train`, or `torchrun --nproc-per-node 4 train`."""

import os

import click

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


def main() -> None:
    """The entry point `python train`."""
    run(cli, "python train")

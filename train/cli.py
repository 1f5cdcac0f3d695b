"""Trains a language model on a dataset.

    torchrun --nproc-per-node 4 train [--config configs/quickstart.toml] [--section.key value ...] [options]
    python train [--config C] ...          one process, the same code

    --rebuild     throws away the training that stands in runs/NAME and starts over
    --dry-run     prints what the training would be, its size, cost and first batch, and writes nothing
    --profile     leaves a trace of some steps in runs/NAME/train/profile

Needs the dataset that `python -m preprocess` makes; leaves `runs/NAME/train` and the model folder `runs/NAME/model`. Started again, it
goes on from its last checkpoint; when it is complete it says so. With `torchrun --max-restarts 3` it does so by itself when a process dies.
"""

import os
import sys

from packlm import config as configuration
from packlm import dataset
from packlm.base import errors
from packlm.base import log as logs

OPTIONS = ("--rebuild", "--dry-run", "--profile")


def main() -> None:
    """Reads the command line, checks that the training can be done, and does it."""
    logs.setup()
    file, settings, others = configuration.split_arguments(sys.argv[1:])
    if "-h" in others or "--help" in others:
        print(__doc__)
        return
    if unknown := [word for word in others if word not in OPTIONS]:
        hint = errors.did_you_mean(unknown[0], OPTIONS, "see `python train --help`")
        raise errors.RequestError(f"unknown argument {unknown[0]!r}; {hint}")
    # When torchrun starts processes again, the training that they threw away the first time is their own by now.
    rebuild = "--rebuild" in others and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    config = configuration.load(file, settings)
    manifest = dataset.read_manifest(config.dataset.dir)

    from . import stage  # torch takes seconds to import, and a wrong request should not wait for it

    if "--dry-run" in others:
        if text := stage.describe(config, manifest):
            print(text)
        return
    stage.run(config, manifest, rebuild, "--profile" in others)


def run() -> None:
    """Runs `main`; what goes wrong becomes a line on standard error and the exit status."""
    errors.run(main, less_memory="--train.accumulate N goes on from the last checkpoint, each batch in N passes, with the same result")

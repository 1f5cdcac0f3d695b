"""Trains a language model on a dataset.

    torchrun --nproc-per-node 4 train [--config configs/quickstart.toml] [--section.key value ...] [--rebuild]
    python train [--config C] ...          one process, the same code

Needs the dataset that `python -m preprocess` makes; leaves `runs/NAME/train` and the model folder `runs/NAME/model`. Started again, it
goes on from its last checkpoint; when it is complete it says so.
"""

import sys
from pathlib import Path

# `torchrun train` puts train/ itself first on the path, where its modules would shadow others; the repository belongs there.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import shutil

from pipeline import config as configuration
from pipeline import dataset, errors, files
from pipeline import log as logs

log = logging.getLogger("packlm")


def main() -> None:
    """Reads the command line, checks that the training can be done, and does it."""
    logs.setup()
    file, settings, others = configuration.split_arguments(sys.argv[1:])
    if "-h" in others or "--help" in others:
        print(__doc__)
        return
    rebuild = "--rebuild" in others
    unknown = [word for word in others if word != "--rebuild"]
    if unknown:
        raise errors.RequestError(f"unknown argument {unknown[0]!r}; see `python train --help`")
    config = configuration.load(file, settings)
    manifest = dataset.read_manifest(config.dataset.dir)

    from train import distributed, record, trainer  # torch takes seconds to import, and a wrong request should not wait for it

    folder, wanted = config.run.dir / "train", record.settings_of(config, manifest)
    with distributed.start(config.train.device) as ranks:
        complete = not rebuild and record.is_complete(config.run.dir, wanted)
        ranks.barrier()  # all have read the record before rank 0 changes it
        if complete:
            log.info("%s: up to date, trained with these settings (--rebuild trains anew)", config.run.dir / "model")
            return
        if not ranks.first:
            ranks.barrier()
            trainer.Trainer(config, manifest, ranks).run(fresh=rebuild)
            return
        with files.lock(folder / ".lock"):
            if rebuild:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                (folder / "summary.json").unlink(missing_ok=True)
            files.write_json(folder / "settings.json", wanted)
            ranks.barrier()
            trainer.Trainer(config, manifest, ranks).run(fresh=rebuild)


if __name__ == "__main__":
    errors.run(main)

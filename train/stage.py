"""The stage: trains the model of a configuration, or reports that it is trained, or what training it would be."""

import logging
from contextlib import nullcontext

from packlm import dataset, distributed, tracking
from packlm.base import files
from packlm.config import Config

from . import dry_run, record
from .trainer import Trainer

log = logging.getLogger("packlm")


def run(config: Config, manifest: dataset.Manifest, rebuild: bool = False, profile: bool = False) -> None:
    """All ranks: trains until the last step, from the latest checkpoint if there is one; nothing if the training is complete.

    Args:
        rebuild: deletes the training that the run's folder holds and starts over.
        profile: writes a trace of some steps to `train/profile`.
    """
    inputs = record.inputs_of(config, manifest)
    with distributed.start(config.train.device, config.train.timeout_seconds) as ranks:
        lock = config.run.dir / "train" / ".lock"
        complete = not rebuild and record.is_complete(config.run.dir, inputs)
        ranks.barrier()  # all ranks have read the record before rank 0 changes it
        if complete:
            log.info("%s: up to date, trained with these settings (train it anew with --rebuild)", config.run.dir / "model")
            if ranks.first:
                files.remove_stale_lock(lock)  # of a training that was killed between its record and its end
            tracking.deliver(config, "train")
            return
        with files.lock(lock) if ranks.first else nullcontext():
            if ranks.first:
                files.remove_temporaries(config.run.dir / "train")
                record.begin(config.run.dir, inputs, rebuild)
            ranks.barrier()
            Trainer(config, manifest, ranks).run(fresh=rebuild, profile=profile)
            if ranks.first:
                record.end(config.run.dir, inputs)


def describe(config: Config, manifest: dataset.Manifest) -> str | None:
    """All ranks: what training this would be, as text on rank 0 (None on the others); nothing is written."""
    with distributed.start(config.train.device, config.train.timeout_seconds) as ranks:
        text = dry_run.describe(config, manifest, ranks)
        return text if ranks.first else None

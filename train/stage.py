"""The stage: trains the model of a configuration, or reports that it is trained, or what training it would be."""

import logging
from contextlib import nullcontext, suppress

from packlm import dataset, distributed, tracking
from packlm.base import files
from packlm.base.errors import RequestError, resumable
from packlm.config import Config
from packlm.distributed import Ranks

from . import continuation, dry_run, record
from .trainer import Trainer

log = logging.getLogger("packlm")


@resumable()
def run(config: Config, manifest: dataset.Manifest, rebuild: bool = False, profile: bool = False) -> None:
    """All ranks: trains until the last step, from the latest checkpoint if there is one; nothing if the training is complete.

    Whatever can be refused is refused before a file is written.

    Args:
        rebuild: trains anew, in `rebuild/` in the run's folder, and replaces the training and the model of the run at the end.
        profile: writes a trace of some steps to `train/profile`.
    """
    inputs, folder = record.inputs_of(config, manifest), config.run.dir
    with distributed.start(config.train.device, config.train.timeout_seconds) as ranks:
        lock = folder / "train" / ".lock"
        if ranks.first and record.is_unpublished(folder):
            with files.lock(lock):
                _publish(config)
        ranks.barrier()
        place = record.find(folder, inputs, rebuild)
        ranks.barrier()  # all ranks have read the record before rank 0 changes it
        if place is None:
            log.info("%s: up to date, trained with these settings (train it anew with --rebuild)", folder / "model")
            if ranks.first:
                files.remove_stale_lock(lock)  # of a training that was killed between its record and its end
            tracking.deliver(config, "train")
            return
        try:
            with files.lock(lock) if ranks.first else nullcontext():
                _train(config, manifest, ranks, place, profile)
        except RequestError:
            with suppress(OSError):  # which the lock has made; others are not empty
                lock.parent.rmdir()
                folder.rmdir()
            raise


def _train(config: Config, manifest: dataset.Manifest, ranks: Ranks, place: record.Place, profile: bool) -> None:
    """All ranks, under the lock of the run's folder: trains in `place`."""
    inputs, aside = record.inputs_of(config, manifest), place.folder != config.run.dir
    here = config.model_copy(update={"run": config.run.model_copy(update={"dir": place.folder})})
    trainer = Trainer(here, manifest, ranks, place.resumes, recorded=config)
    if place.length:
        continuation.check(trainer, place.finished, place.length)
    if ranks.first:
        if place.length:
            tracking.forget(config, "train")  # parameters of a run in MLflow cannot change
        files.remove_temporaries(place.folder / "train")
        record.begin(place, inputs)
    ranks.barrier()
    starts_over = aside and trainer.resume_step is None
    trainer.run(fresh=starts_over or bool(place.length), profile=profile)
    if ranks.first:
        record.end(place.folder, inputs)
        if aside:
            _publish(config)


def _publish(config: Config) -> None:
    """Puts a finished rebuild in the place of the old training and its model."""
    folder = config.run.dir
    tracking.move(config, "train", folder / "rebuild", folder)
    record.publish(folder)
    log.info("%s: replaced by the new training", folder / "model")


def describe(config: Config, manifest: dataset.Manifest) -> str | None:
    """All ranks: what training this would be, as text on rank 0 (None on the others); nothing is written."""
    with distributed.start(config.train.device, config.train.timeout_seconds) as ranks:
        text = dry_run.describe(config, manifest, ranks)
        inputs = record.inputs_of(config, manifest)
        changes = record.differences(config.run.dir, inputs)
        if changes and (length := record.other_length(config.run.dir, inputs)):
            text += f"\n\n  {config.run.dir}/train holds this training with another length, and is continued: {length}"
        elif changes:
            text += f"\n\n  {config.run.dir}/train holds another training; this one needs another --run.name, or --rebuild. It differs in\n"
            text += "\n".join(f"    {change}" for change in changes)
        return text if ranks.first else None

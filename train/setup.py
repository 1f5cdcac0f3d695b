"""What a training opens: its batches, its validation split, and the weights it starts from."""

import logging
from pathlib import Path

import numpy as np

from packlm import dataset, tracking
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import Validation, resolve_context
from packlm.model import folder as model_folder
from packlm.model.language_model import LanguageModel

from . import checkpoint
from .batches import build as plans
from .batches.plan import Plan

log = logging.getLogger("packlm")

SHAPE = ("cell", "layers", "hidden", "embedding", "tied")
"""The settings of a model that its weights depend on; what is dropped may change."""


def open_plan(config: Config, manifest: dataset.Manifest, ranks: Ranks) -> Plan:
    """The batches of `train.segments`."""
    settings, folder = config.train, config.dataset.dir
    parts = settings.bitwise or ranks.world * settings.accumulate
    if settings.segments == "streams" and parts > settings.streams:
        what = f"{parts} parts of a batch" if parts > ranks.world else f"{ranks.world} processes"
        raise RequestError(f"train.streams: {settings.streams} streams for {what}; each needs one of its own")
    sentences = Sentences.open(folder, manifest, "train") if settings.segments == "sentences" else None
    stream = Stream.open(folder, manifest, "train") if sentences is None else None
    return plans.build(settings, sentences, stream, manifest.length, config.run.seed)


def open_validation(config: Config, manifest: dataset.Manifest) -> Validation | None:
    """The validation split, to be measured with the context that the model is trained with unless `evaluate.context` says otherwise."""
    if "validation" not in manifest.splits:
        log.warning("the dataset has no validation split: the last weights are kept, whatever they are worth")
        return None
    trained = model_folder.trained_context(config.train.segments, config.train.reset)
    context = resolve_context(config.evaluate.context, trained)
    views = Sentences.open(config.dataset.dir, manifest, "validation"), Stream.open(config.dataset.dir, manifest, "validation")
    return Validation(*views, context, config.evaluate.streams, config.evaluate.batch_tokens)


def checkpoint_of_all(folder: Path, ranks: Ranks) -> int | None:
    """All ranks: the checkpoint to go on from, which rank 0 finds; None where there is none."""
    step = checkpoint.newest_whole(folder) if ranks.first else None
    ranks.barrier()  # however long that takes
    found = int(ranks.sum(np.array([0.0 if step is None else step + 1.0]))[0]) - 1
    return found if found >= 0 else None


def take_weights(model: LanguageModel, config: Config, manifest: dataset.Manifest, ranks: Ranks) -> None:
    """All ranks: gives the model the weights of `train.init`, which rank 0 opens.

    Raises:
        RequestError: no model there, of another shape, or of another tokenizer than the dataset's.
    """
    if ranks.first:
        address = config.train.init
        folder = tracking.folder_of(address, config.tracking)
        found, about = model_folder.load(folder)
        if about.tokenizer != manifest.digests["tokenizer"]:
            raise RequestError(
                f"train.init: {address} has another tokenizer ({about.tokenizer[:16]}) than {config.dataset.dir} "
                f"({manifest.digests['tokenizer'][:16]}); make the dataset with the model's: --tokenizer.kind file "
                f"--tokenizer.file {folder}/tokenizer.json"
            )
        own, its = (settings.model_dump(include=set(SHAPE)) for settings in (model.settings, found.settings))
        if differing := [f"model.{key} = {its[key]!r}, here {own[key]!r}" for key in SHAPE if own[key] != its[key]]:
            raise RequestError(f"train.init: {address} has another shape: {'; '.join(differing)}")
        model_folder.restore_weights(model, model_folder.weights_of(found), folder)
    ranks.barrier()  # fetching may take long
    ranks.share_first(model)

"""What a training opens: the plan of its batches, the validation split, the latest checkpoint, and the weights of another model."""

import logging
from pathlib import Path

import numpy as np

from packlm import dataset, fine_tuning, tracking
from packlm.base.errors import RequestError
from packlm.batches.stream_plan import StreamPlan
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import Validation, resolve_context
from packlm.model import folder as model_folder
from packlm.model import info
from packlm.model.language_model import LanguageModel

from . import checkpoint
from .batches.mixture import DatasetMixture, MixturePart, MixturePlan, divided
from .batches.plan import Plan
from .batches.row_plan import RowPlan
from .batches.sentence_plan import SentencePlan
from .batches.stream_mixture import StreamMixturePlan

log = logging.getLogger("packlm")


def open_plan(config: Config, mixture: DatasetMixture, ranks: Ranks) -> Plan:
    """The plan of `train.segments` over the training split of each dataset.

    Raises:
        RequestError: the settings do not work with these datasets or number of ranks.
    """
    settings, seed, shares = config.train, config.run.seed, [part.share for part in mixture.parts]
    if len(shares) > 1:
        for part in mixture.parts:
            times = part.share * mixture.tokens / part.split.tokens
            log.info("%s: %.1f%% of every update, so an epoch reads it %.2f times", part.folder, 100 * part.share, times)
    if settings.segments == "streams":
        parts = settings.bitwise or ranks.world * settings.accumulate
        if parts > settings.streams:
            readers = f"{parts} parts of a batch" if parts > ranks.world else f"{ranks.world} processes"
            raise RequestError(f"train.streams: {settings.streams} streams for {readers}; each needs at least one")
        streams = [Stream.open(part.folder, part.manifest, "train") for part in mixture.parts]
        more = settings.window, settings.reset == "document", seed if settings.window_drawn else None
        if len(streams) == 1:
            return StreamPlan.even(streams[0], settings.streams, *more)
        return StreamMixturePlan(streams, divided(settings.streams, shares, "train.streams"), *more)
    unit = mixture.parts[0].manifest.length if settings.segments == "rows" and len(shares) > 1 else 1  # whole rows
    budgets = [unit * number for number in divided(settings.global_batch_tokens // unit, shares, "train.global_batch_tokens")]
    plans = [
        _stateless_plan(config, part, budget, seed + (number << 32))
        for number, (part, budget) in enumerate(zip(mixture.parts, budgets, strict=True))
    ]
    return plans[0] if len(plans) == 1 else MixturePlan(plans)


def _stateless_plan(config: Config, part: MixturePart, tokens: int, seed: int) -> SentencePlan | RowPlan:
    """The plan of one dataset whose share of a global batch are so many tokens."""
    settings = config.train
    if settings.segments == "rows":
        return RowPlan(Stream.open(part.folder, part.manifest, "train"), part.manifest.length, tokens, seed)
    return SentencePlan(Sentences.open(part.folder, part.manifest, "train"), tokens, seed, settings.on_overlong, settings.grouping)


def open_validation(config: Config, manifest: dataset.Manifest) -> Validation | None:
    """The validation split, measured with the context of the training unless `evaluate.context` says otherwise; None if there is none.

    Raises:
        RequestError: there is none, and a setting needs one.
    """
    if "validation" not in manifest.splits:
        train = config.train
        needs = {"train.patience": train.patience > 0, "train.schedule": train.schedule == "plateau"}
        needs["train.optimizer"] = train.optimizer == "nt-asgd"
        if names := [f"{name} = {getattr(train, name.split('.')[1])}" for name, needed in needs.items() if needed]:
            raise RequestError(
                f"{', '.join(names)}: follows the validation loss, and {config.dataset.dir} has no validation split; make one with "
                "`packlm preprocess --rebuild` and --corpus.validation_fraction 0.05 or --corpus.validation FILE, or change the setting"
            )
        log.warning("no validation split: training keeps the last weights, without knowing whether they are the best")
        return None
    trained = info.trained_context(config.train.segments, config.train.reset)
    context = resolve_context(config.evaluate.context, trained)
    views = Sentences.open(config.dataset.dir, manifest, "validation"), Stream.open(config.dataset.dir, manifest, "validation")
    return Validation(*views, context, config.evaluate.streams, config.evaluate.batch_tokens)


def latest_checkpoint(folder: Path, ranks: Ranks) -> int | None:
    """All ranks: the step of the checkpoint to resume from, which rank 0 looks for; None if there is none."""
    step = checkpoint.latest(folder) if ranks.first else None
    ranks.barrier()  # digests of large checkpoints may take longer than the timeout of a collective
    shared = int(ranks.sum(np.array([0.0 if step is None else step + 1.0]))[0]) - 1
    return shared if shared >= 0 else None


def load_initial_weights(model: LanguageModel, config: Config, manifest: dataset.Manifest, ranks: Ranks) -> None:
    """All ranks: loads the weights of the model `train.init`, which rank 0 opens and broadcasts.

    Raises:
        RequestError: there is no such model, or its shape or tokenizer is another.
    """
    if ranks.first:
        address = config.train.init
        folder = tracking.folder_of(address, config.tracking)
        source, about = model_folder.load(folder)
        if about.tokenizer != manifest.digests["tokenizer"]:
            raise RequestError(
                f"train.init: {address} has another tokenizer ({about.tokenizer[:16]}) than {config.dataset.dir} "
                f"({manifest.digests['tokenizer'][:16]}); make the dataset with the model's: `packlm preprocess` with this "
                f"--train.init and no setting of the tokenizer, or --tokenizer.kind file --tokenizer.file {folder}/tokenizer.json"
            )
        fine_tuning.check_shape(address, source.settings, model.settings)
        model_folder.restore_weights(model, model_folder.weights_of(source), folder)
    ranks.barrier()  # a download may take longer than the timeout of a collective
    ranks.broadcast(model)

"""Which version of a registered model is its champion: a new one becomes it only by being better, both measured on the same split now.

Models that share the tokenizer are compared by perplexity per token; others by bits per byte of the split's text, if both tokenizers
lose nothing. Everything else about them may differ: the context of a prediction is that of the new one's report.
"""

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

from packlm import dataset, tracking
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from packlm.evaluation.evaluate import resolve_context
from packlm.tracking import Recorder

from . import original_text

log = logging.getLogger("packlm")

SPLIT = "validation"


@dataclass(frozen=True)
class Comparison:
    """A new version beside the champion, for `champion.json`."""

    model: str
    """Name in the registry."""
    version: str
    champion: str
    """The version that was champion until now; empty where none was."""
    by: str | None
    """What was compared: `perplexity` or `bits_per_byte`, the lower the better; None where nothing was."""
    new: float | None
    old: float | None
    context: str
    """What a prediction saw."""
    data: str
    """Digest of the dataset."""
    won: bool
    reason: str
    """The outcome as a sentence."""


def contest(config: Config, engine: Engine, version: str, reports: dict[str, Any], recorder: Recorder) -> Comparison | None:
    """Rank 0: compares a registered version (as `engine`) with the champion, and moves the alias if it is better. Says so in a line.

    Args:
        reports: those made of this model, by split; without one of the validation split it is measured here.

    Returns None if the registry did not answer: then nothing was decided.
    """
    name = config.tracking.model_name
    present = recorder.champion(name)
    if present is None:
        log.warning("champion: the registry does not answer, so models:/%s@champion stays as it is; the same command tries again", name)
        return None
    manifest = dataset.read_manifest(config.dataset.dir)
    context = resolve_context(config.evaluate.context, engine.about.context)
    by, new, old, won = None, None, None, False
    if present == version:
        reason = f"version {version} is the champion already"
    elif not present:
        won, reason = True, f"version {version}, as no other was"
    else:
        try:
            folder = tracking.folder_of(f"models:/{name}/{present}", config.tracking)
        except PacklmError as error:
            log.warning("champion: %s; models:/%s@champion stays as it is, and the same command tries again", error, name)
            return None
        try:
            by, new, old = _measured(config, engine, Engine.load(folder, engine.device), manifest, context, reports)
        except PacklmError as error:
            reason = f"version {present} stays, not compared with version {version}: {error}"
        else:
            won = new < old
            numbers = f"{by.replace('_', ' ')} {new:.4f} against {old:.4f} on {SPLIT}, context {context}"
            reason = f"version {version} replaces version {present}: {numbers}" if won else f"version {present} stays: {numbers}"
    if won and not recorder.crown(name, version):
        log.warning("champion: the registry does not answer, so version %s of models:/%s has no alias yet", version, name)
        return None
    log.info("models:/%s@champion: %s", name, reason)
    return Comparison(name, version, present, by, new, old, context, manifest.digests["content"], won, reason)


def keep(found: Comparison, config: Config, recorder: Recorder) -> None:
    """Writes `champion.json` and records it: the file, and the two numbers if there are two."""
    path = config.run.dir / "evaluate" / "champion.json"
    files.write_json(path, asdict(found))
    recorder.artifact(path, "evaluate")
    if found.new is not None and found.old is not None:
        recorder.metrics({f"champion/{found.by}_new": found.new, f"champion/{found.by}_old": found.old, "champion/won": found.won})


def _measured(
    config: Config, new: Engine, old: Engine, manifest: dataset.Manifest, context: str, reports: dict[str, Any]
) -> tuple[str, float, float]:
    """(what is compared, the new model's, the champion's)."""
    folder, alone = config.dataset.dir, Ranks(0, 1, new.device)
    if SPLIT not in manifest.splits:
        raise PacklmError(f"the dataset {folder} has no {SPLIT} split; move the alias by hand if it should go")
    settings = config.evaluate.model_copy(update={"split": SPLIT, "context": context, "baselines": False})
    report = reports.get(SPLIT) or measure.measure_dataset(new.model, new.about, folder, settings, alone)
    if old.about.tokenizer == new.about.tokenizer:
        theirs = measure.measure_dataset(old.model, old.about, folder, settings, alone)
        return "perplexity", report["perplexity"], theirs["perplexity"]
    if not (old.about.lossless and new.about.lossless):
        raise PacklmError("their tokenizers differ, and bits per byte need two that lose nothing; move the alias by hand if it should go")
    texts = original_text.blocks(folder, manifest, SPLIT, new.encoder)
    result, measured, *_ = measure.measure_documents(old.model, old.about, old.encoder, texts, settings, alone)
    if measured.bytes != report["bytes"]:
        raise PacklmError(f"{folder}: {measured.bytes:,} bytes of text were read back of {report['bytes']:,}; the dataset is damaged")
    return "bits_per_byte", report["bits_per_byte"], result.nll / math.log(2) / measured.bytes

"""Which version of a registered model is the champion: a new one becomes it only by being better, both measured now on the same split.

Models that share the tokenizer are compared by perplexity per token, others by bits per byte of the split's text, which needs lossless
tokenizers. Everything else about them may differ; the context of a prediction is that of the new version's report.
"""

import logging
import math

from packlm import tracking
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from packlm.evaluation.evaluate import resolve_context
from packlm.tracking import Recorder
from packlm.tracking.run_files import Comparison, EvaluationReport

from . import original_text

log = logging.getLogger("packlm")

SPLIT = "validation"


def contest(
    config: Config, engine: Engine, manifest: Manifest, version: str, reports: dict[str, EvaluationReport], recorder: Recorder
) -> Comparison | None:  # fmt: skip
    """Rank 0: compares a registered version with the champion, moves the alias if the version is better, and logs the outcome.

    Args:
        engine: the model of `version`.
        manifest: that of the dataset in `dataset.dir`.
        reports: its evaluation reports by split; without one of the validation split, it is measured here.

    Returns None if the registry did not answer: then nothing was decided.
    """
    name = config.tracking.model_name
    current = recorder.champion(name)
    if current is None:
        log.warning("champion: the registry does not answer; models:/%s@champion is unchanged, run the same command again", name)
        return None
    context = resolve_context(config.evaluate.context, engine.info.context)
    by, new, old, won = None, None, None, False
    if current == version:
        reason = f"version {version} is the champion already"
    elif not current:
        won, reason = True, f"version {version}, the first champion"
    else:
        try:
            folder = tracking.folder_of(f"models:/{name}/{current}", config.tracking)
        except PacklmError as error:
            log.warning("champion: %s; models:/%s@champion is unchanged, run the same command again", error, name)
            return None
        try:
            by, new, old = _measure(config, engine, Engine.load(folder, engine.device), manifest, context, reports)
        except PacklmError as error:
            reason = f"version {current} stays, not compared with version {version}: {error}"
        else:
            won = new < old
            numbers = f"{by.replace('_', ' ')} {new:.4f} against {old:.4f} on {SPLIT}, context {context}"
            reason = f"version {version} replaces version {current}: {numbers}" if won else f"version {current} stays: {numbers}"
    if won and not recorder.set_champion(name, version):
        log.warning("champion: the registry does not answer; version %s of models:/%s has no alias yet", version, name)
        return None
    log.info("models:/%s@champion: %s", name, reason)
    return Comparison(
        model=name, version=version, champion=current, by=by, new=new, old=old, context=context, data=manifest.digests["content"], won=won,
        reason=reason,
    )  # fmt: skip


def write(comparison: Comparison, config: Config, recorder: Recorder) -> None:
    """Writes `champion.json`, and records it with the two numbers if there are two."""
    path = config.run.dir / "evaluate" / "champion.json"
    files.write_json(path, comparison.model_dump())
    recorder.artifact(path, "evaluate")
    by, new, old = comparison.by, comparison.new, comparison.old
    if new is not None and old is not None:
        recorder.metrics({f"champion/{by}_new": new, f"champion/{by}_old": old, "champion/won": comparison.won})


def _measure(
    config: Config, new: Engine, old: Engine, manifest: Manifest, context: str, reports: dict[str, EvaluationReport]
) -> tuple[str, float, float]:
    """(metric, the new model's value, the champion's value)."""
    folder, ranks = config.dataset.dir, Ranks(0, 1, new.device)
    if SPLIT not in manifest.splits:
        raise PacklmError(f"the dataset {folder} has no {SPLIT} split; move the alias by hand if you want to")
    settings = config.evaluate.model_copy(update={"split": SPLIT, "context": context, "baselines": False})

    def report_of(engine: Engine) -> EvaluationReport:
        return EvaluationReport.model_validate(measure.measure_dataset(engine.model, engine.info, folder, manifest, settings, ranks))

    report = reports.get(SPLIT) or report_of(new)
    if old.info.tokenizer == new.info.tokenizer:
        return "perplexity", report.perplexity, report_of(old).perplexity
    if report.bits_per_byte is None or not old.info.lossless:
        raise PacklmError("their tokenizers differ, and bits per byte need two lossless ones; move the alias by hand if you want to")
    documents = original_text.blocks(folder, manifest, SPLIT, new.encoder)
    result, counts, *_ = measure.measure_documents(old.model, old.info, old.encoder, documents, settings, ranks)
    if counts.bytes != report.bytes:
        raise PacklmError(f"{folder}: {counts.bytes:,} bytes of text were read back of {report.bytes:,}; the dataset is damaged")
    return "bits_per_byte", report.bits_per_byte, result.nll / math.log(2) / counts.bytes

"""The stage `evaluate` of a pipeline: measures the configured splits, and records and registers the model.

run.dir/evaluate/SPLIT.json              the report
                 SPLIT.md, SPLIT.svg     the same as a page with a figure
                 SPLIT.surprisal.html    a heat map of the first sentences
                 SPLIT.inputs.json       written last: the record that the split is complete
                 champion.json           whether the model became the champion (`serve.registry.champion`)
"""

import logging
from pathlib import Path
from typing import Any

from packlm import dataset, tracking
from packlm.base import completion, files, json_models
from packlm.config import Config
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure, reports
from packlm.model import folder as model_folder
from packlm.tracking import Recorder, metric_names
from packlm.tracking.run_files import EvaluationReport

from ..registry.register import register
from ..score import heat_map
from . import page as report_page

log = logging.getLogger("packlm")

HEAT_MAP_SENTENCES = 200
"""Sentences of a split in its heat map."""
SUMMARY = ("perplexity", "perplexity_per_word", "bits_per_byte")
"""Metrics of a report that are recorded on the pipeline's run, too."""


def evaluate(config: Config, ranks: Ranks) -> str | None:
    """All ranks: measures the splits of `evaluate.split` that are not complete, then records and registers the model.

    Returns the reports as a table for people on rank 0, None on the others.
    """
    folder = config.run.dir / "model"
    info, manifest = model_folder.read(folder), dataset.read_manifest(config.dataset.dir)
    settings = config.evaluate.model_dump(mode="json", exclude={"batch_tokens", "split"})
    inputs = {"weights": info.weights, "tokenizer": info.tokenizer, "dataset": manifest.digests["content"], "evaluate": settings}
    inputs["format"] = str(reports.FORMAT)
    outs = {split: config.run.dir / "evaluate" / f"{split}.json" for split in config.evaluate.splits(manifest.splits)}
    complete = {split: completion.is_complete(out.with_suffix(".inputs.json"), inputs | {"split": split}) for split, out in outs.items()}
    ranks.barrier()  # all ranks have read the records before rank 0 writes
    for split in filter(complete.get, outs):
        log.info("%s: up to date, from this model, dataset and settings", outs[split])
    if not all(complete.values()):
        with tracking.stage(config, "evaluate") as recorder:
            recorder.params(settings | {"split": config.evaluate.split, "weights": info.weights})
            engine = Engine.load(folder, ranks.device)
            for split in outs:
                if not complete[split]:
                    recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), split)
                    split_settings = config.evaluate.model_copy(update={"split": split})
                    report = measure.measure_dataset(engine.model, info, config.dataset.dir, manifest, split_settings, ranks)
                    if ranks.first:
                        _write(report, engine, config, manifest, outs[split], recorder)
            if not ranks.first:
                return None
            measured = {split: json_models.read(out, EvaluationReport) for split, out in outs.items()}
            registered = register(folder, engine, config, manifest, measured, recorder)
        if registered:  # and what the stage has recorded is in MLflow or on the disk
            for split, out in outs.items():
                completion.write(out.with_suffix(".inputs.json"), inputs | {"split": split}, [out])
    elif ranks.first:
        tracking.deliver(config, "evaluate")
    return "\n\n".join(reports.table(files.read_json(out)) for out in outs.values()) if ranks.first else None


def _write(report: dict[str, Any], engine: Engine, config: Config, manifest: dataset.Manifest, out: Path, recorder: Recorder) -> None:
    """Writes a report as JSON, as a page with its figure, and a heat map of the split's first sentences; records them all."""
    split = report["split"]
    out.with_suffix(".inputs.json").unlink(missing_ok=True)  # of the report that this one replaces
    files.write_json(out, report)
    page, heat = out.with_suffix(".md"), out.with_name(f"{split}.surprisal.html")
    report_page.write(report, page)
    _write_heat_map(engine, config, manifest, split, report["context"], heat)
    metrics = {metric_names.of_stage("evaluate", name): value for name, value in reports.metrics(report, split).items()}
    recorder.metrics(metrics)
    recorder.summary({name: value for name, value in metrics.items() if name.rpartition("/")[2] in SUMMARY})
    for path in (out, page, page.with_suffix(".svg"), heat):
        recorder.artifact(path, "evaluate")
    for groups in ("by_sentence_length", "by_token"):
        columns = {key: [row[key] for row in report[groups]] for key in report[groups][0]}
        recorder.table(f"evaluate/{split}.{groups}.json", columns)
    log.info("wrote %s, %s and %s", out, page.name, heat.name)


def _write_heat_map(engine: Engine, config: Config, manifest: dataset.Manifest, split: str, context: str, out: Path) -> None:
    sentences = Sentences.open(config.dataset.dir, manifest, split)
    texts = [engine.encoder.decode(sentences.targets(number)[:-1]) for number in range(min(HEAT_MAP_SENTENCES, len(sentences)))]
    scores = engine.score(texts, document=context != "sentences")
    with files.atomic(out, "w") as stream:
        note = "Context: each sentence " + ("by itself." if context == "sentences" else "after all those before it here.")
        heat_map.write(scores, stream, f"Surprisal of {split} under {engine.info.name}", note, len(sentences) - len(texts))

"""The stage `evaluate` of a pipeline: what it reads, where its results go, what MLflow keeps of them.

run.dir/evaluate/SPLIT.json         the report                run.dir/evaluate/SPLIT.inputs.json    what it was made from
                 SPLIT.md, .svg     the same as a page with a figure
                 SPLIT.surprisal.html    a heat map of the first sentences
"""

import logging
from pathlib import Path
from typing import Any

from packlm import dataset, tracking
from packlm.base import files
from packlm.config import Config
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure, reports
from packlm.model import folder as model_folder
from packlm.tracking import Recorder

from ..completion import note_inputs, up_to_date
from ..registry.register import registered
from ..score import heat_map
from . import page as report_page

log = logging.getLogger("packlm")

HEAT_SENTENCES = 200
"""Sentences of a split in its heat map."""


def evaluate(config: Config, ranks: Ranks) -> str | None:
    """All ranks: measures `evaluate.split` of the configured dataset, then records and registers the model.

    Returns the reports for reading; on rank 0.
    """
    folder = config.run.dir / "model"
    about, manifest = model_folder.read(folder), dataset.read_manifest(config.dataset.dir)
    settings = config.evaluate.model_dump(mode="json", exclude={"batch_tokens", "split"})
    inputs = {"weights": about.weights, "tokenizer": about.tokenizer, "dataset": manifest.digests["content"], "evaluate": settings}
    inputs["format"] = str(reports.FORMAT)
    outs = {split: config.run.dir / "evaluate" / f"{split}.json" for split in config.evaluate.splits(manifest.splits)}
    complete = {split: up_to_date(out, inputs | {"split": split}, ranks) for split, out in outs.items()}
    if not all(complete.values()):
        with tracking.stage(config, "evaluate") as recorder:
            recorder.params(settings | {"split": config.evaluate.split, "weights": about.weights})
            engine = Engine.load(folder, ranks.device)
            for split in outs:
                if not complete[split]:
                    recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), split)
                    chosen = config.evaluate.model_copy(update={"split": split})
                    report = measure.measure_dataset(engine.model, about, config.dataset.dir, chosen, ranks)
                    if ranks.first:
                        _keep(report, engine, config, outs[split], recorder)
            if not ranks.first:
                return None
            if registered(folder, engine, config, {split: files.read_json(out) for split, out in outs.items()}, recorder):
                for split, out in outs.items():
                    note_inputs(out, inputs | {"split": split})
    return "\n\n".join(reports.table(files.read_json(out)) for out in outs.values()) if ranks.first else None


def _keep(report: dict[str, Any], engine: Engine, config: Config, out: Path, recorder: Recorder) -> None:
    """Writes a report as JSON, as a page with its figure, and a heat map of the split's first sentences; records them all."""
    split = report["split"]
    files.write_json(out, report)
    page, heat = out.with_suffix(".md"), out.with_name(f"{split}.surprisal.html")
    report_page.write(report, page)
    _draw_first_sentences(engine, config, split, report["context"], heat)
    numbers = reports.metrics(report, split)
    recorder.metrics(numbers)
    recorder.summary(numbers)
    for path in (out, page, page.with_suffix(".svg"), heat):
        recorder.artifact(path, "evaluate")
    for parts in ("by_sentence_length", "by_token"):
        recorder.table(f"evaluate/{split}.{parts}.json", {key: [row[key] for row in report[parts]] for key in report[parts][0]})
    log.info("wrote %s, and beside it a page, %s, and a heat map, %s", out, page.name, heat.name)


def _draw_first_sentences(engine: Engine, config: Config, split: str, context: str, out: Path) -> None:
    sentences = Sentences.open(config.dataset.dir, dataset.read_manifest(config.dataset.dir), split)
    texts = [engine.encoder.decode(sentences.targets(number)[:-1]) for number in range(min(HEAT_SENTENCES, len(sentences)))]
    scores = engine.score(texts, document=context != "sentences")
    with files.atomic(out, "w") as stream:
        note = "Context: each sentence " + ("by itself." if context == "sentences" else "after all those before it here.")
        heat_map.write(scores, stream, f"Surprisal of {split} under {engine.about.name}", note, len(sentences) - len(texts))

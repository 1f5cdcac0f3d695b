"""The stages `evaluate` and `generate` of a pipeline: what they read, where their results go, what MLflow keeps of them.

    run.dir/evaluate/SPLIT.json         the report                run.dir/evaluate/SPLIT.inputs.json
                     SPLIT.md, .svg     the same as a page with a figure
                     SPLIT.surprisal.html    a heat map of the first sentences
    run.dir/generate/samples.jsonl      the generations           run.dir/generate/samples.inputs.json
                     summary.json       how many, how long, how varied

`.inputs.json` says what a result was made from, and its digest: a stage whose inputs and result are as they were does nothing.
"""

import json
import logging
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import dataset, files, tracking
from pipeline.config import Config
from pipeline.settings import DRAWING
from pipeline.tracking import Recorder
from serve import batch_job, champion, heat_map, measuring, report_page, reports
from serve.engine import Engine
from serve.prompts import Request, open_requests
from train import model_folder
from train.distributed import Ranks
from train.views import Sentences

log = logging.getLogger("packlm")

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("torch", "numpy", "safetensors", "tokenizers", "sentencex", "pydantic", "pyarrow", "datasets", "tqdm", "mlflow")
HEAT_SENTENCES = 200
"""Sentences of a split in its heat map."""
TABLE_ROWS = 1000
"""Most generations in the table that MLflow shows."""


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
    complete = {split: _up_to_date(out, inputs | {"split": split}, ranks) for split, out in outs.items()}
    if not all(complete.values()):
        with tracking.stage(config, "evaluate") as recorder:
            recorder.params(settings | {"split": config.evaluate.split, "weights": about.weights})
            engine = Engine.load(folder, ranks.device)
            for split in outs:
                if not complete[split]:
                    recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), split)
                    chosen = config.evaluate.model_copy(update={"split": split})
                    report = measuring.measure_dataset(engine.model, about, config.dataset.dir, chosen, ranks)
                    if ranks.first:
                        _keep(report, engine, config, outs[split], recorder)
            if not ranks.first:
                return None
            if _registered(folder, engine, config, {split: files.read_json(out) for split, out in outs.items()}, recorder):
                for split, out in outs.items():
                    _note_inputs(out, inputs | {"split": split})
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


def _registered(folder: Path, engine: Engine, config: Config, made: dict[str, Any], recorder: Recorder) -> bool:
    """Registers the model and settles who is champion; false if the registry did not answer: run again, the stage does the rest."""
    if not config.tracking.uri:
        return True
    code = Path(__file__).with_name("mlflow_model.py")
    packages = [ROOT / name for name in ("pipeline", "preprocess", "serve", "train")]
    parameters = {"task": "generate", "seed": config.run.seed, **engine.generation}
    name, about = config.tracking.model_name, engine.about
    tags = {split: f"{report['perplexity']:.2f}" for split, report in made.items()}
    tags |= {"run": config.run.name, "weights": about.weights[:16], "tokenizer": about.tokenizer[:16]}
    version = recorder.log_model(folder.resolve(), code, requirements(), packages, name, "prompt", parameters, {"precision": "full"}, tags)
    if version is None:
        return False
    log.info("version %s of models:/%s", version, name)
    found = champion.contest(config, engine, version, made, recorder)
    if found:
        champion.keep(found, config, recorder)
        if found.champion != version:
            recorder.describe(name, version, "\n\n".join([*map(reports.in_a_line, made.values()), f"As champion: {found.reason}."]))
    return found is not None


def generate(config: Config, ranks: Ranks) -> None:
    """All ranks: continues the prompts of `generate.prompts`, or writes text from nothing where there are none."""
    folder = config.run.dir / "model"
    about = model_folder.read(folder)
    requests = configured_requests(config)
    settings = config.generate.model_dump(mode="json", include=set(DRAWING))
    prompts = files.digest([vars(request) for request in requests])
    inputs = {"weights": about.weights, "tokenizer": about.tokenizer, "prompts": prompts, "generate": settings, "seed": config.run.seed}
    out = config.run.dir / "generate" / "samples.jsonl"
    for line in config.generate.ignored.values():
        log.warning("%s", line)
    if _up_to_date(out, inputs, ranks):
        return
    with tracking.stage(config, "generate") as recorder:
        recorder.params(settings | {"seed": config.run.seed, "prompts": str(config.generate.prompts), "weights": about.weights})
        summary = batch_job.run(Engine.load(folder, ranks.device), requests, config.generate, config.run.seed, ranks, out)
        if summary is None:
            return
        files.write_json(out.with_name("summary.json"), summary)
        lengths = {f"tokens_{share}": value for share, value in summary["tokens_per_generation"].items()}
        numbers = {name: value for name, value in (summary | lengths).items() if isinstance(value, int | float)}
        recorder.metrics({f"generate/{name}": value for name, value in numbers.items()})
        recorder.table("samples.json", table(out))
        for path in (out, out.with_name("summary.json")):
            recorder.artifact(path, "generate")
        _note_inputs(out, inputs)
    log.info("wrote %s", out)
    batch_job.tell(summary)


def configured_requests(config: Config) -> list[Request]:
    """The prompts of `generate.prompts`; the empty prompt where there are none."""
    prompts = config.generate.prompts
    if isinstance(prompts, Path):
        return open_requests(prompts)
    return [Request(number, prompt.strip()) for number, prompt in enumerate(prompts or ("",), 1)]


def table(path: Path) -> dict[str, list[Any]]:
    """The first generations of a file of them, as columns, for MLflow's table view."""
    columns: dict[str, list[Any]] = {name: [] for name in ("line", "prompt", "text", "log_prob", "tokens", "finished")}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for generation in record.get("generations", []):
                for name, column in columns.items():
                    column.append(generation[name] if name in generation else record[name])
            if len(columns["line"]) >= TABLE_ROWS:
                break
    return columns


def requirements() -> list[str]:
    """What a recorded model needs installed: the versions at hand, without local parts such as `+cpu`, which no index has."""
    return [f"{name}=={re.sub(r'[+].*', '', metadata.version(name))}" for name in REQUIREMENTS]


def _up_to_date(out: Path, inputs: dict[str, Any], ranks: Ranks) -> bool:
    """All ranks: whether `out` was made from these inputs and is as it was made; says so."""
    noted = _inputs_path(out)
    same = out.is_file() and noted.is_file() and files.read_json(noted) == inputs | {"sha256": files.sha256(out)}
    ranks.barrier()  # all have read before rank 0 writes
    if same:
        log.info("%s: up to date, made from this model with these settings", out)
    return same


def _note_inputs(out: Path, inputs: dict[str, Any]) -> None:
    files.write_json(_inputs_path(out), inputs | {"sha256": files.sha256(out)})


def _inputs_path(out: Path) -> Path:
    return out.with_suffix(".inputs.json")

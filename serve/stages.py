"""The stages `evaluate` and `generate` of a pipeline: what they read, where their results go, what MLflow keeps of them.

    run.dir/evaluate/SPLIT.json         the report                run.dir/evaluate/SPLIT.inputs.json
    run.dir/generate/samples.jsonl      the generations           run.dir/generate/samples.inputs.json

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
from serve import batch_job, measuring, reports
from serve.engine import Engine
from train import model_folder
from train.distributed import Ranks

log = logging.getLogger("packlm")

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("torch", "numpy", "safetensors", "tokenizers", "sentencex", "pydantic", "pyarrow", "datasets", "tqdm", "mlflow")
TABLE_ROWS = 1000
"""Most generations in the table that MLflow shows."""


def evaluate(config: Config, ranks: Ranks) -> str | None:
    """All ranks: measures `evaluate.split` of the configured dataset, then records and registers the model.

    Returns the report for reading; on rank 0.
    """
    folder, split = config.run.dir / "model", config.evaluate.split
    about, manifest = model_folder.read(folder), dataset.read_manifest(config.dataset.dir)
    settings = config.evaluate.model_dump(mode="json", exclude={"batch_tokens"})
    inputs = {"weights": about.weights, "tokenizer": about.tokenizer, "dataset": manifest.digests["content"], "evaluate": settings}
    out = config.run.dir / "evaluate" / f"{split}.json"
    if _up_to_date(out, inputs, ranks):
        return reports.table(files.read_json(out)) if ranks.first else None
    with tracking.stage(config, "evaluate") as recorder:
        recorder.params(settings | {"weights": about.weights})
        recorder.dataset(config.run.name, manifest.digests["content"], str(config.dataset.dir), split)
        engine = Engine.load(folder, ranks.device)
        report = measuring.measure_dataset(engine.model, about, config.dataset.dir, config.evaluate, ranks)
        if not ranks.first:
            return None
        files.write_json(out, report)
        numbers = reports.metrics(report, split)
        recorder.metrics(numbers)
        recorder.summary(numbers)
        recorder.artifact(out, "evaluate")
        code = Path(__file__).with_name("mlflow_model.py")
        packages = [ROOT / name for name in ("pipeline", "preprocess", "serve", "train")]
        parameters = {"task": "generate", "seed": config.run.seed, **engine.generation}
        version = recorder.log_model(folder.resolve(), code, requirements(), packages, config.tracking.model_name, parameters)
        if version:
            log.info("registered as version %s of models:/%s", version, config.tracking.model_name)
        if version or not config.tracking.uri:  # otherwise the stage is not complete: run again, it registers the model
            _note_inputs(out, inputs)
    log.info("wrote %s", out)
    return reports.table(report)


def generate(config: Config, ranks: Ranks) -> None:
    """All ranks: continues the prompts of `generate.prompts`, or writes text from nothing where there are none."""
    folder = config.run.dir / "model"
    about = model_folder.read(folder)
    requests = configured_requests(config)
    settings = config.generate.model_dump(mode="json", exclude={"prompts", "batch_prompts"})
    prompts = files.digest([vars(request) for request in requests])
    inputs = {"weights": about.weights, "tokenizer": about.tokenizer, "prompts": prompts, "generate": settings, "seed": config.run.seed}
    out = config.run.dir / "generate" / "samples.jsonl"
    if _up_to_date(out, inputs, ranks):
        return
    with tracking.stage(config, "generate") as recorder:
        recorder.params(settings | {"seed": config.run.seed, "prompts": str(config.generate.prompts), "weights": about.weights})
        batch_job.run(Engine.load(folder, ranks.device), requests, config.generate, config.run.seed, ranks, out)
        if not ranks.first:
            return
        columns = table(out)
        recorder.table("samples.json", columns)
        recorder.artifact(out, "generate")
        _note_inputs(out, inputs)
    refused = sum(bool(request.error) for request in requests)
    log.info("wrote %s: %d prompts, %d that could not be read", out, len(requests) - refused, refused)


def configured_requests(config: Config) -> list[batch_job.Request]:
    """The prompts of `generate.prompts`; the empty prompt where there are none."""
    prompts = config.generate.prompts
    if isinstance(prompts, Path):
        return batch_job.open_requests(prompts)
    return [batch_job.Request(number, prompt.strip()) for number, prompt in enumerate(prompts or ("",), 1)]


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

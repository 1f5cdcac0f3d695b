"""The stage `generate` of a pipeline: continues the configured prompts and records the result.

run.dir/generate/samples.jsonl          the generations
                 summary.json           their statistics
                 samples.inputs.json    written last: the record that the stage is complete
"""

import logging
from pathlib import Path
from typing import Any

from packlm import tracking
from packlm.base import completion, files, json_text, regular_files
from packlm.config import Config
from packlm.config.generate import DECODING_SETTINGS
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.model import folder as model_folder

from . import batch_job
from .prompts import Request, open_requests

log = logging.getLogger("packlm")

TABLE_ROWS = 1000
"""Most generations in the table that MLflow shows."""


def generate(config: Config, ranks: Ranks) -> None:
    """All ranks: continues the prompts of `generate.prompts`; without any, generates from the empty prompt."""
    folder = config.run.dir / "model"
    info = model_folder.read(folder)
    requests = configured_requests(config)
    settings = config.generate.model_dump(mode="json", include=set(DECODING_SETTINGS))
    prompts = files.digest([vars(request) for request in requests])
    inputs = {"weights": info.weights, "tokenizer": info.tokenizer, "prompts": prompts, "generate": settings, "seed": config.run.seed}
    out = config.run.dir / "generate" / "samples.jsonl"
    record, summary_path = out.with_suffix(".inputs.json"), out.with_name("summary.json")
    for line in config.generate.ignored.values():
        log.warning("%s", line)
    complete = completion.is_complete(record, inputs)
    ranks.barrier()  # all ranks have read the record before rank 0 writes
    if complete:
        log.info("%s: up to date, from this model, prompts and settings", out)
        tracking.deliver(config, "generate")
        return
    with tracking.stage(config, "generate") as recorder:
        recorder.params(settings | {"seed": config.run.seed, "prompts": str(config.generate.prompts), "weights": info.weights})
        summary = batch_job.run(Engine.load(folder, ranks.device), requests, config.generate, config.run.seed, ranks, out)
        if summary is None:
            return
        files.write_json(summary_path, summary)
        lengths = {f"tokens_{quantile}": value for quantile, value in summary["tokens_per_generation"].items()}
        numbers = {name: value for name, value in (summary | lengths).items() if isinstance(value, int | float)}
        recorder.metrics({f"generate/{name}": value for name, value in numbers.items()})
        recorder.table("samples.json", table(out))
        for path in (out, summary_path):
            recorder.artifact(path, "generate")
    completion.write(record, inputs, [out])  # after the record of the stage is in MLflow or on the disk
    log.info("wrote %s", out)
    batch_job.log_summary(summary)


def configured_requests(config: Config) -> list[Request]:
    """The prompts of `generate.prompts`, or the empty prompt without any."""
    prompts = config.generate.prompts
    if isinstance(prompts, Path):
        return open_requests(prompts)
    return [Request(number, prompt.strip()) for number, prompt in enumerate(prompts or ("",), 1)]


def table(path: Path) -> dict[str, list[Any]]:
    """The first generations of a file as columns, for MLflow's table view."""
    columns: dict[str, list[Any]] = {name: [] for name in ("line", "prompt", "text", "log_prob", "tokens", "finished")}
    with regular_files.open_binary(path) as lines:
        for line in lines:
            record = json_text.loads(line)
            for generation in record.get("generations", []):
                for name, column in columns.items():
                    column.append(generation[name] if name in generation else record[name])
            if len(columns["line"]) >= TABLE_ROWS:
                break
    return columns

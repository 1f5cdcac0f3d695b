"""The stage `generate` of a pipeline: what it reads, where its results go, what MLflow keeps of them.

run.dir/generate/samples.jsonl      the generations           run.dir/generate/samples.inputs.json    what they were made from
                 summary.json       how many, how long, how varied
"""

import json
import logging
from pathlib import Path
from typing import Any

from packlm import tracking
from packlm.base import files
from packlm.config import Config
from packlm.config.generate import DRAWING
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.model import folder as model_folder

from ..completion import note_inputs, up_to_date
from . import batch_job
from .prompts import Request, open_requests

log = logging.getLogger("packlm")

TABLE_ROWS = 1000
"""Most generations in the table that MLflow shows."""


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
    if up_to_date(out, inputs, ranks):
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
        note_inputs(out, inputs)
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

"""Registers an evaluated model in MLflow, and decides whether it becomes the champion."""

import logging
import re
from importlib import metadata
from pathlib import Path

import packlm
from packlm.base import escape
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.engine import Engine
from packlm.tracking import LoggedModel, Recorder
from packlm.tracking.run_files import EvaluationReport

from . import champion

log = logging.getLogger("packlm")

REQUIREMENTS = ("torch", "numpy", "safetensors", "tokenizers", "sentencex", "pydantic", "pyarrow", "datasets", "tqdm", "mlflow")

OUTPUTS = {
    "prompt": "string",
    "generations": [{"text": "string", "log_prob": "double", "tokens": "long", "finished": "boolean"}],
    "log_prob": "double",
    "tokens": ["string"],
    "log_probs": ["double"],
}
"""The columns of both tasks: `generations` of `generate`, the last three of `score`."""


def register(
    folder: Path, engine: Engine, config: Config, manifest: Manifest, reports: dict[str, EvaluationReport], recorder: Recorder
) -> bool:
    """Rank 0: registers the model and decides on the champion.

    Args:
        manifest: that of the dataset on which it was evaluated.
        reports: the model's evaluation reports by split.

    Returns False if the registry did not answer: run again, the stage does the rest.
    """
    if not config.tracking.uri:
        return True
    name, info = config.tracking.model_name, engine.info
    perplexities = {split: f"{report.perplexity:.2f}" for split, report in reports.items()}
    model = LoggedModel(
        folder=folder.resolve(),
        code=Path(__file__).with_name("mlflow_model.py"),
        requirements=requirements(),
        code_paths=[Path(packlm.__file__).parent],
        name=name,
        column="prompt",
        outputs=OUTPUTS,
        parameters={"task": "generate", "seed": config.run.seed, **engine.generation_config},
        options={"precision": "full"},
        tags=perplexities | {"run": config.run.name, "weights": info.weights[:16], "tokenizer": info.tokenizer[:16]},
    )
    version = recorder.log_model(model)
    if version is None:
        return False
    log.info("version %s of models:/%s", version, name)
    comparison = champion.contest(config, engine, manifest, version, reports, recorder)
    if comparison is None:
        return False
    champion.write(comparison, config, recorder)
    if comparison.champion != version:
        lines = [f"{report.line}; {report.tokens:,} tokens, context {report.context}" for report in reports.values()]
        recorder.describe_version(name, version, "\n\n".join([*lines, f"As champion: {escape.one_line(comparison.reason)}."]))
    return True


def requirements() -> list[str]:
    """The installed versions of what a logged model needs, without local parts such as `+cpu`, which no package index has."""
    return [f"{name}=={re.sub(r'[+].*', '', metadata.version(name))}" for name in REQUIREMENTS]

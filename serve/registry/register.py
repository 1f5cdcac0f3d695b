"""Recording an evaluated model in MLflow's registry, and settling which version is its champion."""

import logging
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import packlm
from packlm.config import Config
from packlm.engine import Engine
from packlm.evaluation import reports
from packlm.tracking import Recorder

from . import champion

log = logging.getLogger("packlm")

REQUIREMENTS = ("torch", "numpy", "safetensors", "tokenizers", "sentencex", "pydantic", "pyarrow", "datasets", "tqdm", "mlflow")


def registered(folder: Path, engine: Engine, config: Config, made: dict[str, Any], recorder: Recorder) -> bool:
    """Registers the model and settles who is champion; false if the registry did not answer: run again, the stage does the rest."""
    if not config.tracking.uri:
        return True
    code = Path(__file__).with_name("mlflow_model.py")
    packages = [Path(packlm.__file__).parent]
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


def requirements() -> list[str]:
    """What a recorded model needs installed: the versions at hand, without local parts such as `+cpu`, which no index has."""
    return [f"{name}=={re.sub(r'[+].*', '', metadata.version(name))}" for name in REQUIREMENTS]

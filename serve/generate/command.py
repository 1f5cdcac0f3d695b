"""The command `generate`: which prompts, which settings; where the generations go."""

import json
import logging
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from packlm import config as configuration
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine

from . import batch_job, stage
from .prompts import Request, open_requests, read_requests

log = logging.getLogger("packlm")


def run(model: str | Path, asked: Namespace, config: Config, given: list[str] | None, ranks: Ranks) -> None:
    """All ranks: continues the prompts that the options `asked` name; see `serve.__main__`.

    Args:
        given: the settings of the command line, where they are to amend what the model's folder recommends; else `config` has them all.

    Raises:
        RequestError: no such model or file, a setting that cannot be, or several processes with one standard output.
    """
    requests = _requests(asked, config)
    engine = Engine.load(model, ranks.device, config.tracking, asked.precision)
    if given is not None:
        recommended = [word for key, value in engine.generation.items() for word in (f"--generate.{key}", _spelled(value))]
        config = configuration.load(None, recommended + given)
    settings = config.generate
    for key, why in settings.ignored.items():
        if given is None or f"--generate.{key}" in given:  # what the model's folder recommends for another strategy is no mistake
            log.warning("%s", why)
    if asked.out in (None, "-"):
        batch_job.write(engine, requests, settings, config.run.seed, ranks, sys.stdout)
    else:
        summary = batch_job.run(engine, requests, settings, config.run.seed, ranks, Path(asked.out))
        if summary:
            batch_job.tell(summary)


def _requests(asked: Namespace, config: Config) -> list[Request]:
    if asked.prompt is not None:
        return [Request(1, asked.prompt)]
    if asked.prompts == "-":
        return read_requests(sys.stdin.buffer, "-")
    if asked.prompts:
        return open_requests(Path(asked.prompts))
    return [Request(1)] if asked.model else stage.configured_requests(config)


def _spelled(value: Any) -> str:
    """A setting as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

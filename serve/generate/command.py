"""The command `generate`: continues prompts of a file or of the command line with any model."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packlm import config as configuration
from packlm.base import files, json_text
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine

from .. import inputs
from . import batch_job, stage
from .prompts import Request, open_requests, read_requests

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class GenerateOptions:
    """The options of `generate` that are not settings."""

    model: str | None
    prompts: str | None
    prompt: str | None
    out: str | None
    precision: str


def run(model: str | Path, options: GenerateOptions, config: Config, arguments: Sequence[str] | None, ranks: Ranks) -> None:
    """All ranks: continues the prompts of `--prompt` or `--prompts`.

    Args:
        arguments: the settings of the command line, if they override what the model folder recommends; None if `config` is complete.

    Raises:
        RequestError: there is no such model or file, a setting is invalid, or several processes share standard output.
    """
    requests = _requests(options, config)
    engine = Engine.load(model, ranks.device, config.tracking, options.precision)
    if arguments is not None:
        recommended = [word for key, value in engine.generation_config.items() for word in (f"--generate.{key}", _as_argument(value))]
        config = configuration.load(None, [*recommended, *arguments], model_only=True)
    for key, why in config.generate.ignored.items():
        if arguments is None or f"--generate.{key}" in arguments:  # not what the model folder recommends for another strategy
            log.warning("%s", why)
    if options.out in (None, "-"):
        batch_job.write(engine, requests, config.generate, config.run.seed, ranks, sys.stdout)
    elif files.is_stream(Path(options.out)):
        with files.atomic(Path(options.out), "w") as stream:
            batch_job.write(engine, requests, config.generate, config.run.seed, ranks, stream)
    else:
        summary = batch_job.run(engine, requests, config.generate, config.run.seed, ranks, Path(options.out))
        if summary:
            batch_job.log_summary(summary)


def _requests(options: GenerateOptions, config: Config) -> list[Request]:
    if options.prompt is not None:
        return [Request(1, options.prompt)]
    if options.prompts == "-":
        with inputs.open_file("-") as stream:
            return read_requests(stream, "-")
    if options.prompts:
        return open_requests(Path(options.prompts))
    return [Request(1)] if options.model else stage.configured_requests(config)


def _as_argument(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    return value if isinstance(value, str) else json_text.dumps(value)

"""The command `server`: answers HTTP requests until it is stopped."""

import logging
from pathlib import Path

from packlm.config import Config
from packlm.engine import Engine

from .completions import Completions, Limits

log = logging.getLogger("packlm")


def run(address: str | Path, host: str, port: int, limits: Limits, concurrency: int, config: Config, precision: str) -> None:
    """Loads the model and serves it; returns when a signal has ended the server."""
    import uvicorn

    from . import app

    engine = Engine.load(address, store=config.tracking, precision=precision)
    engine.generate("", strategy="greedy", max_tokens=1)  # what is computed once is computed before the first request
    name = engine.info.name
    log.info("%s at http://%s:%d/v1/completions (Ctrl-C stops it); schema at /docs", name, host, port)
    uvicorn.run(app.create(Completions(engine, name, limits), concurrency), host=host, port=port, log_level="warning")

"""Runs all stages, and shows the configuration.

    python -m pipeline run [--config C] [--rebuild] [--section.key value ...]      all stages that are not complete
    python -m pipeline config [--config C] [--explain] [--section.key value ...]   the resolved configuration, as TOML
    python -m pipeline compare RUN RUN ...                                         settings that differ, and numbers, side by side
    python -m pipeline sync [--config C] [--section.key value ...]                 sends to MLflow the metrics it has missed

A RUN is a folder (runs/NAME), or the id or name of a run in MLflow.
"""

import sys

from packlm import config as configuration
from packlm import tracking
from packlm.base import errors, log
from packlm.base.credentials import without_credentials
from packlm.base.errors import RequestError

from . import compare, stages

OPTIONS = {"run": ["--rebuild"], "config": ["--explain"], "compare": [], "sync": []}


def main() -> None:
    log.setup()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return
    command, *rest = words
    if command not in OPTIONS:
        raise RequestError(f"unknown command {command!r}; there are {', '.join(OPTIONS)}")
    file, settings, options = configuration.split_arguments(rest)
    if command == "compare":
        print(compare.run(options, configuration.load(file, settings).tracking))
        return
    if wrong := [option for option in options if option not in OPTIONS[command]]:
        raise RequestError(f"unknown argument {wrong[0]!r}; `{command}` takes --config, --section.key value {' '.join(OPTIONS[command])}")
    config = configuration.load(file, settings)
    if command == "run":
        stages.run_all(config, rebuild="--rebuild" in options)
        print(stages.summary(config))
    elif command == "config":
        print(without_credentials(configuration.to_toml(config, explain="--explain" in options)), end="")
    else:
        tracking.sync(config)


def run() -> None:
    """Runs `main`; what goes wrong becomes a line on standard error and the exit status."""
    errors.run(main)

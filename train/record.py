"""Which training stands in a run's folder: the settings its result follows from, and whether it is complete."""

from pathlib import Path
from typing import Any

from packlm import dataset
from packlm.base import files
from packlm.base.changes import differences
from packlm.base.errors import RequestError
from packlm.config import Config

FREE = ("processes", "device", "accumulate", "log_every", "checkpoint_every", "keep", "samples", "timeout_seconds")
"""The settings of `train` that may change on the way: the result follows from the others."""


def settings_of(config: Config, manifest: dataset.Manifest) -> dict[str, Any]:
    """What the result of a training follows from; with other settings it is another training."""
    return {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=set(FREE)),
        "evaluate": config.evaluate.model_dump(mode="json", include={"context", "streams"}),
        "run": {"seed": config.run.seed},
        "dataset": {"digest": manifest.digests["content"]},
    }


def is_complete(run: Path, settings: dict[str, Any]) -> bool:
    """Whether this training has already ended in the run's folder; `RequestError` listing the differences if another one stands there."""
    record = run / "train" / "settings.json"
    if not record.exists():
        return False
    changed = differences(files.read_json(record), settings)
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise RequestError(
            f"{record.parent}: holds a training of other settings:\n{lines}\n"
            "give this one another --run.name, or replace the old one with --rebuild"
        )
    return (record.parent / "summary.json").exists() and (run / "model" / "config.json").exists()

"""Which training a run's folder belongs to, and whether it is complete.

train/settings.json    the inputs of the training, written before the first step
train/complete.json    written last: the inputs again, and the digests of the results (`packlm.base.completion`)
"""

import shutil
from pathlib import Path
from typing import Any

from packlm import dataset
from packlm.base import completion, escape, sealed_json
from packlm.base.errors import RequestError
from packlm.config import Config

WITHOUT_EFFECT = {"processes", "device", "accumulate", "log_every", "checkpoint_every", "keep", "samples", "timeout_seconds"}
"""Settings of `train` that may change when a training is resumed: its result does not depend on them."""
OUTPUTS = ("train/summary.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json")

Inputs = dict[str, dict[str, Any]]
"""Section -> setting -> value."""


def inputs_of(config: Config, manifest: dataset.Manifest) -> Inputs:
    """Everything that the result of a training depends on."""
    return {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        "evaluate": config.evaluate.model_dump(mode="json", include={"context", "streams"}),
        "run": {"seed": config.run.seed},
        "dataset": {"digest": manifest.digests["content"]},
    }


def is_complete(run: Path, inputs: Inputs) -> bool:
    """Whether the run's folder holds the finished result of this training.

    Raises:
        RequestError: it holds a training with other inputs; the message lists the differences.
    """
    settings = run / "train" / "settings.json"
    if settings.exists() and (changes := completion.differences(read_settings(settings), inputs)):
        lines = [f"{settings.parent}: a training with other settings:", *(f"  {change}" for change in changes)]
        raise RequestError(escape.lines(*lines, "choose another --run.name, or replace this training with --rebuild"))
    return completion.is_complete(run / "train" / "complete.json", inputs)


def read_settings(path: Path) -> Inputs:
    """The inputs of a training, from its `settings.json`; `PacklmError` if that was edited or is damaged."""
    return sealed_json.read(path, Inputs, "replace the training with --rebuild, or choose another --run.name")


def begin(run: Path, inputs: Inputs, rebuild: bool) -> None:
    """Writes the inputs of a training; with `rebuild`, deletes the training that the folder holds first."""
    folder = run / "train"
    if rebuild:
        for name in ("complete.json", "summary.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    sealed_json.write(folder / "settings.json", inputs)


def end(run: Path, inputs: Inputs) -> None:
    """Records that the training is complete, with the digests of its results."""
    completion.write(run / "train" / "complete.json", inputs, [run / name for name in OUTPUTS])

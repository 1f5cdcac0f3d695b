"""Which training a run's folder holds, whether it is complete, and where one that replaces it is made.

train/settings.json    the inputs of the training, written when nothing about the request can be refused any more
train/complete.json    written last: the inputs again, and the digests of the results (`packlm.base.completion`)
rebuild/               with `--rebuild`: `train/` and `model/` of the new training, which take the place of the old ones when it is complete

A training without a step in a checkpoint or in `metrics.jsonl` holds nothing: any other may take its place.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from packlm import dataset
from packlm.base import completion, escape, files, json_lines, sealed_json
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config

from . import checkpoint
from .batches.mixture import open_mixture
from .progress.metrics import MetricLine

WITHOUT_EFFECT = {"processes", "device", "accumulate", "log_every", "checkpoint_every", "keep", "milestones", "samples", "timeout_seconds"}
"""Settings of `train` that may change when a training is resumed: its result does not depend on them."""
LENGTH = ("epochs", "max_steps", "patience")
"""Settings of `train` with which a training, finished or not, is continued: they say when it ends, not how it gets there."""
OUTPUTS = ("train/summary.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json")

Inputs = dict[str, dict[str, Any]]
"""Section -> setting -> value."""


def inputs_of(config: Config, manifest: dataset.Manifest) -> Inputs:
    """Everything that the result of a training depends on."""
    mix = {part.manifest.digests["content"]: part.share for part in open_mixture(config, manifest).parts[1:]}
    return {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=WITHOUT_EFFECT | {"mix"}),
        "evaluate": config.evaluate.model_dump(mode="json", include={"context", "streams"}),
        "run": {"seed": config.run.seed},
        "dataset": {"digest": manifest.digests["content"]} | ({"mix": mix} if mix else {}),
    }


class Place(NamedTuple):
    """Where a training is made."""

    folder: Path
    """Of its `train/` and `model/`: the run's folder, or `rebuild/` in it."""
    resumes: bool
    """Whether it continues the training that is there; otherwise that is deleted."""
    length: str = ""
    """If that had another length: the settings of `LENGTH` that have changed."""
    finished: bool = False
    """Whether it had ended."""


def find(run: Path, inputs: Inputs, rebuild: bool) -> Place | None:
    """Where the training with these inputs is made, or resumes; None if the run's folder holds its finished result.

    Raises:
        RequestError: without `rebuild`, if the folder holds another training, not one of another length; the message lists the differences.
    """
    aside = run / "rebuild"
    being_rebuilt = _holds(aside, inputs)
    if rebuild:
        return Place(aside, being_rebuilt)
    try:
        if is_complete(run, inputs):
            return None
    except RequestError:
        if being_rebuilt:
            return Place(aside, True)
        if length := other_length(run, inputs):
            return Place(run, True, length, (run / "train" / "complete.json").exists())
        raise
    return Place(run, not _is_empty(run / "train"))


def is_complete(run: Path, inputs: Inputs) -> bool:
    """Whether the run's folder holds the finished result of this training.

    Raises:
        RequestError: it holds a training with other inputs; the message lists the differences.
    """
    folder = run / "train"
    if changes := differences(run, inputs):
        lines = [f"{folder}: a training with other settings:", *(f"  {change}" for change in changes)]
        raise RequestError(escape.lines(*lines, "choose another --run.name, or replace this training with --rebuild"))
    return completion.is_complete(folder / "complete.json", inputs)


def differences(run: Path, inputs: Inputs) -> list[str]:
    """The inputs in which the training that the run's folder holds differs; nothing if it holds none."""
    settings = run / "train" / "settings.json"
    return [] if not settings.exists() or _is_empty(settings.parent) else completion.differences(read_settings(settings), inputs)


def other_length(run: Path, inputs: Inputs) -> str:
    """What differs, if the training that the run's folder holds differs in its length alone; else empty."""
    found = read_settings(run / "train" / "settings.json")
    other = found | {"train": found.get("train", {}) | {key: inputs["train"][key] for key in LENGTH}}
    return "; ".join(completion.differences(found, inputs)) if other == inputs else ""


def read_settings(path: Path) -> Inputs:
    """The inputs of a training, from its `settings.json`; `PacklmError` if that was edited or is damaged."""
    return sealed_json.read(path, Inputs, "replace the training with --rebuild, or choose another --run.name")


def _holds(run: Path, inputs: Inputs) -> bool:
    """Whether a folder holds some of the training with these inputs; a damaged one does not."""
    try:
        return (run / "train" / "settings.json").exists() and not _is_empty(run / "train") and not differences(run, inputs)
    except PacklmError:
        return False


def _is_empty(folder: Path) -> bool:
    """Whether a training has left no step behind."""
    metrics = folder / "metrics.jsonl"
    if (folder / "complete.json").exists() or any(checkpoint.steps(folder / "checkpoints")):  # step 0 is none
        return False
    return not metrics.exists() or all(line["step"] == 0 for _, line in json_lines.read(metrics, MetricLine))


def begin(place: Place, inputs: Inputs) -> None:
    """Writes the inputs of a training, in place of one that is not continued."""
    folder = place.folder / "train"
    if place.length:
        (folder / "complete.json").unlink(missing_ok=True)
    if not place.resumes:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for name in ("complete.json", "summary.json"):
            (folder / name).unlink(missing_ok=True)
    sealed_json.write(folder / "settings.json", inputs)


def end(run: Path, inputs: Inputs) -> None:
    """Records that the training is complete, with the digests of its results."""
    completion.write(run / "train" / "complete.json", inputs, [run / name for name in OUTPUTS])


def is_unpublished(run: Path) -> bool:
    """Whether a finished rebuild has not replaced the old training, or not wholly: its process was killed."""
    return (run / "rebuild" / "train" / "complete.json").exists() or any(run.glob(".*.replaced"))


def publish(run: Path) -> None:
    """Replaces the run's training and its model by the finished one in `rebuild/`; again after a crash, until nothing is left there."""
    finished = (run / "rebuild" / "train" / "complete.json").exists()
    for name in ("model", "train"):  # the record is in `train`: until it has moved, this is done again
        files.recover_folder(run / name)
        if finished and (run / "rebuild" / name).exists():
            files.replace_folder(run / "rebuild" / name, run / name)
    if finished:
        shutil.rmtree(run / "rebuild", ignore_errors=True)

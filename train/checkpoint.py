"""Checkpoints: everything that is needed to resume a training as if it had not stopped.

    checkpoints/step-00000400/tensors.safetensors    weights, optimizer state, averaged weights, carried states
    checkpoints/step-00000400/state.json             format version, SHA-256 of the tensors, `TrainState`, digest

A checkpoint is written under a temporary name and renamed once it is on disk, so a folder called `step-...` was complete when it got
that name. Later damage is detected by the digest; the training then resumes from the checkpoint before it.
"""

import logging
import os
import re
import shutil
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor
from torch.optim import Optimizer

from packlm.base import files, sealed_json, verified_files
from packlm.base.errors import PacklmError

from .state import TrainState

log = logging.getLogger("packlm")

VERSION = 3
"""Format of the checkpoints that this version of packlm writes and reads."""

_NAME = re.compile("step-[0-9]{8,12}")


class _Content(BaseModel, extra="forbid", strict=True):
    """Content of `state.json`."""

    version: int
    sha256: str
    """Of `tensors.safetensors`."""
    state: TrainState


def prepare(folder: Path) -> None:
    """Makes the folder and deletes unfinished checkpoints in it; fails at once if it cannot be written to."""
    for unfinished in folder.glob(".step-*.tmp"):
        shutil.rmtree(unfinished)
    with files.atomic(folder / ".writable"):
        pass
    (folder / ".writable").unlink()


def save(folder: Path, tensors: dict[str, Tensor], state: TrainState) -> None:
    """Writes the checkpoint of step `state.step`, replacing a damaged one of the same step."""
    path = path_of(folder, state.step)
    work = folder / f".{path.name}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with files.atomic(work / "tensors.safetensors") as stream:
        stream.write(serialize({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
    _write_state(work, state, files.sha256(work / "tensors.safetensors"))
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:  # not made by a training: rmtree would wait for the writer of a FIFO
        path.unlink(missing_ok=True)
    os.rename(work, path)
    files.fsync_folder(folder)


def replace_state(folder: Path, state: TrainState) -> None:
    """Replaces the state in the checkpoint of step `state.step`; its tensors stay."""
    path = path_of(folder, state.step)
    _write_state(path, state, _read_state(path).sha256)


def prune(folder: Path, step: int, last: int, best: int | None) -> None:
    """Deletes all checkpoints except the `last` ones up to `step` and that of step `best`."""
    existing = steps(folder)
    keep = {best, *[other for other in existing if other <= step][-last:]}
    for other in set(existing) - keep:
        shutil.rmtree(path_of(folder, other))


def steps(folder: Path) -> list[int]:
    """The steps that have checkpoints, ascending; other files and folders there are left alone."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir())


def path_of(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return folder / f"step-{step:08d}"


def latest(folder: Path) -> int | None:
    """The step of the latest undamaged checkpoint, with a warning for each damaged one after it; None if there are no checkpoints.

    Raises:
        PacklmError: every checkpoint is damaged.
    """
    damage = None
    for step in reversed(steps(folder)):
        damage = find_damage(folder, step)
        if damage is None:
            return step
        log.warning("%s; falling back to the checkpoint before it", damage)
    if damage:
        raise PacklmError(f"{folder}: no usable checkpoint ({damage}); start over with --rebuild")
    return None


def find_damage(folder: Path, step: int) -> str | None:
    """What is wrong with the checkpoint of a step; None if it is intact."""
    path = path_of(folder, step)
    try:
        expected = _read_state(path).sha256
    except PacklmError as error:
        return str(error)
    tensors = path / "tensors.safetensors"
    actual = files.sha256(tensors) if tensors.is_file() else "no such file"
    return None if actual == expected else f"{tensors}: damaged: expected sha256 {expected}, got {actual}"


def load(folder: Path, step: int) -> tuple[dict[str, Tensor], TrainState]:
    """The tensors and the state of an undamaged checkpoint."""
    path = path_of(folder, step)
    content = _read_state(path)
    try:
        return deserialize(verified_files.read(path / "tensors.safetensors", content.sha256)), content.state
    except SafetensorError as error:
        raise PacklmError(f"{path / 'tensors.safetensors'}: not a safetensors file ({error}); other formats are not opened") from None


def _write_state(path: Path, state: TrainState, sha256: str) -> None:
    sealed_json.write(path / "state.json", {"version": VERSION, "sha256": sha256, "state": state.model_dump()})


def _read_state(path: Path) -> _Content:
    values = files.read_json(path / "state.json")
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        raise PacklmError(f"{path / 'state.json'}: checkpoint format {version}; this version of packlm reads format {VERSION}")
    return sealed_json.parse(values, _Content, path / "state.json", "delete its folder to resume from the checkpoint before it")


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state as tensors named `optimizer index.parameter index.entry`."""
    return {
        f"{index}.{parameter}.{key}": torch.as_tensor(value)
        for index, optimizer in enumerate(optimizers)
        for parameter, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
        if value is not None
    }


def restore_optimizers(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Loads what `optimizer_tensors` returned."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in tensors.items():
        index, parameter, key = name.split(".", 2)
        states[int(index)].setdefault(int(parameter), {})[key] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}

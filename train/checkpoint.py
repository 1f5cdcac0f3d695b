"""Checkpoints: everything a training needs to go on as if it had not stopped.

    checkpoints/step-00000400/tensors.safetensors    weights, optimizer state, averaged weights, carried states
    checkpoints/step-00000400/state.json             position, schedule, results, and the digest of the tensors

A checkpoint is written under another name and renamed when it is on the disk, so whatever is called `step-...` was whole when it got
that name. One that was damaged since is known by its digest: a training goes on from the one before it.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import Optimizer

from packlm.base import files
from packlm.base.errors import PacklmError

log = logging.getLogger("packlm")


def prepare(folder: Path) -> None:
    """Makes the folder, clears what a crash left half written, and fails at once where no checkpoint could be written later."""
    for left in folder.glob(".step-*.tmp"):
        shutil.rmtree(left)
    with files.atomic(folder / ".writable"):
        pass
    (folder / ".writable").unlink()


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes the checkpoint of a step."""
    path = folder_of(folder, step)
    work = folder / f".{path.name}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with files.atomic(work / "tensors.safetensors") as stream:
        stream.write(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
    files.write_json(work / "state.json", {**state, "sha256": files.sha256(work / "tensors.safetensors")})
    shutil.rmtree(path, ignore_errors=True)  # of a training that went on from an earlier one, because this one was damaged
    os.rename(work, path)
    files.fsync_folder(folder)


def amend(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Replaces the state of a checkpoint, whose tensors stay."""
    path = folder_of(folder, step) / "state.json"
    files.write_json(path, {**state, "sha256": files.read_json(path)["sha256"]})


def keep(folder: Path, step: int, last: int, best: int | None) -> None:
    """Deletes all checkpoints but the `last` ones up to a step and the one of step `best`."""
    there = steps(folder)
    kept = [other for other in there if other <= step][-last:]
    for other in set(there) - {*kept, best}:
        shutil.rmtree(folder_of(folder, other))


def steps(folder: Path) -> list[int]:
    """The steps of which there are checkpoints, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def newest_whole(folder: Path) -> int | None:
    """The last step whose checkpoint is not damaged, with a warning for each that is; None where there are no checkpoints.

    Raises:
        PacklmError: there are some, and all are damaged.
    """
    complaint = None
    for step in reversed(steps(folder)):
        complaint = damage(folder, step)
        if complaint is None:
            return step
        log.warning("%s; going back to the checkpoint before it", complaint)
    if complaint:
        raise PacklmError(f"{folder}: no checkpoint is whole ({complaint}); start over with --rebuild")
    return None


def damage(folder: Path, step: int) -> str | None:
    """What is wrong with the checkpoint of a step, if anything is."""
    path = folder_of(folder, step)
    try:
        expected = files.read_json(path / "state.json")["sha256"]
    except (PacklmError, KeyError, TypeError) as error:
        return str(error) if isinstance(error, PacklmError) else f"{path / 'state.json'}: damaged: no sha256 in it"
    tensors = path / "tensors.safetensors"
    found = files.sha256(tensors) if tensors.is_file() else "no such file"
    return None if found == expected else f"{tensors}: damaged: expected sha256 {expected}, got {found}"


def load_checkpoint(folder: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a step's checkpoint, which is whole."""
    path = folder_of(folder, step)
    state = files.read_json(path / "state.json")
    del state["sha256"]
    try:
        return load_file(path / "tensors.safetensors"), state
    except SafetensorError as error:
        raise PacklmError(f"{path / 'tensors.safetensors'}: not a safetensors file ({error}); nothing else is opened") from None


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state as named tensors, `optimizer number.parameter number.entry`."""
    return {
        f"{place}.{number}.{key}": torch.as_tensor(value)
        for place, optimizer in enumerate(optimizers)
        for number, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
        if value is not None
    }


def restore_optimizers(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Gives the optimizers back what `optimizer_tensors` took."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in tensors.items():
        place, number, key = name.split(".", 2)
        states[int(place)].setdefault(int(number), {})[key] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Puts `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}

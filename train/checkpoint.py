"""Checkpoints: everything a training needs to go on as if it had not stopped.

    checkpoints/step-00000400/tensors.safetensors    weights, optimizer state, carried states
    checkpoints/step-00000400/state.json             position, schedule, results, and the digest of the tensors
    checkpoints/pointers.json                        which of them is the latest and which the best

A checkpoint is written under another name and renamed when it is on the disk; only then do the pointers move, so at any instant
they name whole checkpoints. Those that no pointer names are deleted.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import Optimizer

from pipeline import files
from pipeline.errors import PacklmError


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], best: bool) -> None:
    """Writes a checkpoint, makes it the latest, and the best if it is; then deletes those no longer named."""
    name, named = f"step-{step:08d}", pointers(folder)
    work = folder / f".{name}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with files.atomic(work / "tensors.safetensors") as stream:
        stream.write(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
    files.write_json(work / "state.json", {**state, "sha256": files.sha256(work / "tensors.safetensors")})
    shutil.rmtree(folder / name, ignore_errors=True)  # left by a crash before the pointers moved
    os.rename(work, folder / name)
    files.fsync_folder(folder)
    named["latest"] = name
    if best or "best" not in named:
        named["best"] = name
    files.write_json(folder / "pointers.json", named)
    for other in folder.glob("step-*"):
        if other.name not in named.values():
            shutil.rmtree(other)


def pointers(folder: Path) -> dict[str, str]:
    """`{"latest": name, "best": name}`; empty before the first checkpoint."""
    path = folder / "pointers.json"
    return files.read_json(path) if path.exists() else {}


def load_checkpoint(folder: Path, which: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of the `latest` or `best` checkpoint; `PacklmError` if it is damaged."""
    path = folder / pointers(folder)[which]
    state = files.read_json(path / "state.json")
    tensors = path / "tensors.safetensors"
    found = files.sha256(tensors) if tensors.is_file() else "no such file"
    if found != state.get("sha256"):
        raise PacklmError(f"{tensors}: damaged: expected sha256 {state.get('sha256')}, got {found}; start over with --rebuild")
    del state["sha256"]
    return load_file(tensors), state


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

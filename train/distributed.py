"""The processes that train or measure together: torchrun's ranks, or one process alone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipeline.errors import RequestError


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` that work together."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """All ranks: wait for each other."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """All ranks: the block is run by rank 0, and then by the others."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def sum(self, values: np.ndarray) -> np.ndarray:
        """All ranks: the elementwise sum of float64 values over the ranks."""
        if self.world == 1:
            return values
        tensor = torch.as_tensor(values, dtype=torch.float64).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def gather(self, tensor: torch.Tensor, axis: int, sizes: list[int]) -> torch.Tensor | None:
        """All ranks: tensors of `sizes[rank]` along `axis`, joined in the order of the ranks; None but on rank 0."""
        if self.world == 1:
            return tensor
        # Equal shapes for every backend: parts are padded to the largest and cut again.
        padded = tensor.new_zeros([*tensor.shape[:axis], max(sizes), *tensor.shape[axis + 1 :]])
        padded.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        if not self.first:
            return None
        return torch.cat([part.narrow(axis, 0, size) for part, size in zip(parts, sizes, strict=True)], axis)


@contextmanager
def start(device: str) -> Iterator[Ranks]:
    """Joins the ranks that torchrun started (nccl on GPUs, gloo on CPUs), or stands alone; leaves them at the end of the block.

    Args:
        device: cpu, cuda, or auto: cuda if every local rank has a GPU of its own.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local, local_world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if device == "cuda" and gpus < local_world:
        raise RequestError(f"train.device = cuda: {local_world} processes here, but {gpus} GPUs; start fewer, or use cpu")
    place = torch.device("cuda", local) if device != "cpu" and gpus >= local_world else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world > 1:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, place)
    finally:
        if world > 1:
            dist.destroy_process_group()


@contextmanager
def stop_signals() -> Iterator[dict[str, Any]]:
    """Within the block SIGTERM and SIGINT do not end the process but are noted: yields {"signal": name or None}."""
    noted: dict[str, Any] = {"signal": None}

    def note(number: int, frame: FrameType | None) -> None:
        noted["signal"] = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

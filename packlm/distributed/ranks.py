"""The processes that train or measure together: torchrun's ranks, or one process alone."""

import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from packlm.base.errors import PacklmError, RequestError
from packlm.distributed.heartbeat import Heartbeat, named

log = logging.getLogger("packlm")

TIMEOUT_SECONDS = 600.0
CONNECT_SECONDS = 60.0
"""How long torchrun may take to answer the first time."""


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` that work together."""

    rank: int
    world: int
    device: torch.device
    heartbeat: Heartbeat | None = None
    """Where there are several."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """All ranks: wait for each other, however long one takes, as long as it lives."""
        if self.heartbeat:
            self.heartbeat.barrier()

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

    def share_first(self, module: torch.nn.Module) -> None:
        """All ranks: take over rank 0's weights."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def gather(self, tensor: torch.Tensor, axis: int, sizes: list[int]) -> torch.Tensor | None:
        """All ranks: tensors of `sizes[rank]` along `axis`, joined in the order of the ranks; None but on rank 0."""
        if self.world == 1:
            return tensor
        # Equal shapes for every backend: parts are padded to the largest and cut again.
        padded = tensor.new_zeros([*tensor.shape[:axis], max(sizes), *tensor.shape[axis + 1 :]])
        padded.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
        parts = self.gather_equal(padded)
        if not self.first:
            return None
        return torch.cat([part.narrow(axis, 0, size) for part, size in zip(parts, sizes, strict=True)], axis)

    def gather_equal(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """All ranks: the tensors of all ranks, of equal shapes, in their order."""
        if self.world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.contiguous())
        return parts


@contextmanager
def start(device: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Ranks]:
    """Joins the ranks that torchrun started (nccl on GPUs, gloo on CPUs), or stands alone; leaves them at the end of the block.

    Args:
        device: cpu, cuda, or auto: cuda if every local rank has a GPU of its own.
        timeout_seconds: a rank that does not answer for so long is given up, and with it the block.

    Raises:
        PacklmError: another rank ended or froze.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local, local_world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if device == "cuda" and gpus < local_world:
        raise RequestError(f"train.device = cuda: {local_world} processes here, but {gpus} GPUs; start fewer, or use cpu")
    place = torch.device("cuda", local) if device != "cpu" and gpus >= local_world else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(rank, world, place)
        return
    store, rank, world = _shared_store(timeout_seconds)
    # torchrun keeps its store when it starts the processes again (`--max-restarts`), and with it the addresses of those that are gone.
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds), world_size=world, rank=rank, store=store)
    heartbeat = Heartbeat(dist.PrefixStore("packlm", store), rank, world, timeout_seconds)
    try:
        yield Ranks(rank, world, place, heartbeat)
    except RuntimeError as error:
        if not _of_communication(error):
            raise
        with stop_signals():  # torchrun ends the ranks that are left, but not before one has said why
            failure = _named_failure(error, heartbeat, rank)
        raise failure from error
    finally:
        heartbeat.close()
        dist.destroy_process_group()


def _shared_store(timeout_seconds: float) -> tuple[dist.Store, int, int]:
    """The store that brings the ranks together, this rank and the number of ranks.

    torchrun keeps the store itself, and had it before it started us: if that does not answer soon, torchrun is gone. Without torchrun
    rank 0 keeps it, which may be long in coming.
    """
    kept_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    wait = min(CONNECT_SECONDS, timeout_seconds) if kept_by_torchrun else timeout_seconds
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=timedelta(seconds=wait)))
    except dist.DistError as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        who = "torchrun, which has ended or cannot be reached" if kept_by_torchrun else "rank 0, which did not start or cannot be reached"
        raise PacklmError(f"{place}: no answer for {wait:.0f} seconds from {who}") from error
    store.set_timeout(timedelta(seconds=timeout_seconds))
    return store, rank, world


def _of_communication(error: RuntimeError) -> bool:
    """Whether an error is about another rank that is not there: torch knows no class of its own for gloo's."""
    words = ("gloo", "Gloo", "NCCL", "Connection reset", "Broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def _named_failure(error: RuntimeError, heartbeat: Heartbeat, rank: int) -> PacklmError:
    try:
        lost = heartbeat.lost()
    except RuntimeError:  # the store is with a rank that is gone
        lost = []
    reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0][:120]
    who = named(lost) if lost else "the connection to another rank broke"
    text = f"{who}, so the others stopped ({reason}); the same command goes on from the last checkpoint"
    if 0 in lost and rank == min(set(range(len(lost) + 1)) - set(lost)):
        log.critical("%s", text)  # rank 0, which speaks otherwise, cannot
    return PacklmError(text)


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

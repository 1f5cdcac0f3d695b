"""The ranks of a distributed run, as torchrun starts them, or a single process."""

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

from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.distributed.heartbeat import Heartbeat, OtherRankFailed, no_response

log = logging.getLogger("packlm")

TIMEOUT_SECONDS = 600.0
CONNECT_SECONDS = 60.0
"""Timeout of the first connection to torchrun."""

_left: list[dist.ProcessGroup | None] = []
"""Process groups that were left, kept so that DDP's Reducer is never the last to hold one. It would wait for gloo's threads without giving
up the GIL, for which such a thread may wait to free a tensor (pytorch/pytorch#56297): a rank that was stopped hung there."""


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` processes of a run."""

    rank: int
    world: int
    device: torch.device
    heartbeat: Heartbeat | None = None
    """None in a single process."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    def barrier(self) -> None:
        """All ranks: wait for each other, however long a rank takes, as long as it sends heartbeats."""
        if self.heartbeat:
            self.heartbeat.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """All ranks: run the block on rank 0, then on the others."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def sum(self, values: np.ndarray) -> np.ndarray:
        """All ranks: the elementwise sum over the ranks, in float64."""
        if self.world == 1:
            return values
        tensor = torch.as_tensor(values, dtype=torch.float64).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def broadcast(self, module: torch.nn.Module) -> None:
        """All ranks: copy rank 0's weights."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def gather(self, tensor: torch.Tensor, axis: int, sizes: list[int]) -> torch.Tensor | None:
        """All ranks: concatenate tensors of `sizes[rank]` along `axis`, in the order of the ranks; None on all ranks but 0."""
        if self.world == 1:
            return tensor
        # Backends gather equal shapes only: tensors are padded to the largest and cut again.
        padded = tensor.new_zeros([*tensor.shape[:axis], max(sizes), *tensor.shape[axis + 1 :]])
        padded.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
        tensors = self.all_gather(padded)
        return torch.cat([t.narrow(axis, 0, size) for t, size in zip(tensors, sizes, strict=True)], axis) if self.first else None

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """All ranks: the tensors of all ranks, of equal shapes, in the order of the ranks."""
        if self.world == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(tensors, tensor.contiguous())
        return tensors


@contextmanager
def start(device: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Ranks]:
    """Joins the process group that torchrun started (nccl on GPUs, gloo on CPUs), if any; leaves it at the end of the block.

    Args:
        device: cpu, cuda, or auto: cuda if every local rank has a GPU of its own.
        timeout_seconds: the block fails if a rank does not respond for this long.

    Raises:
        RequestError: `device` is cuda and there are fewer GPUs than local ranks.
        PacklmError: another rank ended or froze.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank, local_world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if device == "cuda" and gpus < local_world:
        raise RequestError(f"train.device = cuda: {local_world} processes here, but {gpus} GPUs; start fewer processes, or use cpu")
    local_device = torch.device("cuda", local_rank) if device != "cpu" and gpus >= local_world else torch.device("cpu")
    if local_device.type == "cuda":
        torch.cuda.set_device(local_device)
    if world == 1:
        yield Ranks(rank, world, local_device)
        return
    store, rank, world = _rendezvous(timeout_seconds)
    # torchrun keeps its store when it restarts the processes (`--max-restarts`), and with it the addresses of those that are gone.
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if local_device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds), world_size=world, rank=rank, store=store)
    heartbeat = Heartbeat(dist.PrefixStore("packlm", store), rank, world, timeout_seconds)
    try:
        yield Ranks(rank, world, local_device, heartbeat)
    except BaseException as error:
        with stop_signals():  # torchrun terminates the remaining ranks, but not before one has named the cause
            if isinstance(error, RuntimeError) and _is_communication_error(error):
                failure = _failure(error, heartbeat, rank)
                raise failure from error
            if not isinstance(error, Stopped | OtherRankFailed) and heartbeat.failed(error) and isinstance(error, PacklmError):
                log.critical("%s", error)  # it happened on this rank alone, and rank 0 logs errors
        raise
    finally:
        heartbeat.close()
        _left.append(dist.group.WORLD)
        dist.destroy_process_group()


def _rendezvous(timeout_seconds: float) -> tuple[dist.Store, int, int]:
    """The store through which the ranks find each other, this rank and the number of ranks.

    torchrun serves the store itself and had it before it started us: if it does not answer soon, torchrun is gone. Without torchrun
    rank 0 serves it, and may start late.
    """
    served_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    timeout = min(CONNECT_SECONDS, timeout_seconds) if served_by_torchrun else timeout_seconds
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except dist.DistError as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        server = "torchrun, which has ended or is unreachable" if served_by_torchrun else "rank 0, which did not start or is unreachable"
        raise PacklmError(f"{address}: timed out after {timeout:.0f} s waiting for {server}") from error
    store.set_timeout(timedelta(seconds=timeout_seconds))
    return store, rank, world


def _is_communication_error(error: RuntimeError) -> bool:
    """Whether another rank caused an error by its absence; gloo's errors have no class of their own."""
    words = ("gloo", "Gloo", "NCCL", "Connection reset", "Broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def _failure(error: RuntimeError, heartbeat: Heartbeat, rank: int) -> PacklmError:
    """The error for users, which names the ranks that are lost."""
    try:
        lost = heartbeat.lost()
    except RuntimeError:  # the store was served by a rank that is gone
        lost = []
    reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0][:120]
    cause = no_response(lost) if lost else "lost the connection to another rank"
    text = f"{cause}, so the other ranks stopped ({reason}); resume from the last checkpoint by running the same command again"
    lowest_running = min(set(range(len(lost) + 1)) - set(lost))
    if 0 in lost and rank == lowest_running:
        log.critical("%s", text)  # otherwise rank 0 logs errors
    return PacklmError(text)


@contextmanager
def stop_signals() -> Iterator[dict[str, Any]]:
    """Records SIGTERM, SIGINT and SIGHUP within the block instead of ending the process: yields {"signal": name or None}."""
    received: dict[str, Any] = {"signal": None}

    def record(number: int, frame: FrameType | None) -> None:
        received["signal"] = signal.Signals(number).name

    handlers = {number: signal.signal(number, record) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` calls them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(torch.cuda.device_count())] if visible is None else [*filter(None, visible.split(","))]

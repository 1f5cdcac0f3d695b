"""Runs a function on several ranks that talk through gloo, as torchrun would start them."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch.multiprocessing


def run_on_ranks(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function(*arguments)` on `world` ranks: in this process if it is one, else in new ones."""
    if world == 1:
        function(*arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(
        _rank, (dict(os.environ), world, port, function, arguments), world, start_method="forkserver"
    )  # fmt: skip


def _rank(
    rank: int, environment: dict[str, str], world: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    os.environ |= environment | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    function(*arguments)

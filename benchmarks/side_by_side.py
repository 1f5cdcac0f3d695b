"""Speed comparisons: each side runs in its own process and they take turns, so that other load on the machine affects all alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from packlm.base.errors import PacklmError

Step = Callable[[], int]
"""Runs a step and returns its number of tokens."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    make: Callable[..., Step]
    """Called with `arguments` in the side's process."""
    arguments: tuple[Any, ...]


def tokens_per_second(sides: list[Side], rounds: int, seconds: float) -> dict[str, list[float]]:
    """The speed of each side in each round; a side's turn in a round takes at least `seconds`."""
    speeds: dict[str, list[float]] = {side.name: [] for side in sides}
    with _processes(sides) as pipes:
        for round_ in range(rounds + 1):
            for side, pipe in zip(sides, pipes, strict=True):
                try:
                    pipe.send(seconds if round_ else 0.0)  # the first round only warms up
                    speed = pipe.recv()
                except (EOFError, ConnectionError):
                    raise PacklmError(f"{side.name}: its process ended; see its output above") from None
                if round_:
                    speeds[side.name].append(speed)
    return speeds


def medians(speeds: dict[str, list[float]]) -> dict[str, float]:
    """The median speed of each side."""
    return {name: median(values) for name, values in speeds.items()}


def ratio(speeds: dict[str, list[float]], one: str, other: str) -> float:
    """The speed of `one` relative to `other`: the median over the rounds."""
    return median(a / b for a, b in zip(speeds[one], speeds[other], strict=True))


@contextmanager
def _processes(sides: list[Side]) -> Iterator[list[Connection]]:
    """Starts a process for each side and yields the pipes to them."""
    context = get_context("spawn")
    pipes, processes = [], []
    for side in sides:
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(theirs, side), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _serve(pipe: Connection, side: Side) -> None:
    step = side.make(*side.arguments)
    while True:
        try:
            seconds = pipe.recv()
        except EOFError:
            return
        tokens, steps, began = 0, 0, time.perf_counter()
        while steps < 3 or time.perf_counter() - began < seconds:
            tokens, steps = tokens + step(), steps + 1
        pipe.send(tokens / (time.perf_counter() - began))

"""Delivers a stage's records to a store that may be slow or away, from a thread of its own, so that the stage never waits for it.

Records go out in the order in which they were given. While the store does not answer, they wait: points in the metrics file
they are read from, everything else in memory. At the end of the stage there is a bounded wait for what is left.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from packlm.tracking.metrics_reader import MetricsReader, Point

log = logging.getLogger("packlm")

BEAT_SECONDS = 2.0
"""Between two looks for new records, and between two attempts while the store does not answer."""
PATIENCE_SECONDS = 5.0
"""How long a stage waits at its end for a store that does not answer."""
SILENCE_SECONDS = 120.0
"""How long a stage waits for one record on its way, while no failure is to be seen."""
ATTEMPTS = 3
"""How often a record is tried that a store which answers does not take."""


class Session(Protocol):
    """An open connection to the store."""

    def send(self, points: list[Point]) -> None:
        """Stores those points that it does not have yet."""

    def answers(self) -> bool:
        """Whether the store answers a plain question."""


S = TypeVar("S", bound=Session)


class Outbox(Generic[S]):
    """The thread and its queue.

    Args:
        connect: opens the session, in the thread; tried again and again while it raises.
        describe: makes an exception readable, without credentials.
    """

    def __init__(self, connect: Callable[[], S], describe: Callable[[Exception], str]):
        self._connect = connect
        self._describe = describe
        self._actions: deque[tuple[Callable[[S], Any], Future[Any]]] = deque()
        self._files: list[MetricsReader] = []
        self._refusals = 0
        self._failing = False
        self._told = False
        self._moved = time.monotonic()
        self._gave_up = False
        self._wake, self._closing, self._abandoned, self._done = (threading.Event() for _ in range(4))
        self.reason = "the store does not answer"
        """Why the last attempt failed."""
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def post(self, action: Callable[[S], Any]) -> "Future[Any]":
        """Queues `action`, which the thread calls with the session; its result, or None if it was given up, is in the future."""
        future: Future[Any] = Future()
        self._actions.append((action, future))
        self._wake.set()
        return future

    def follow(self, path: Path) -> None:
        """Sends what is in the metrics file `path`, and what is appended to it from now on."""
        self._files.append(MetricsReader(path))
        self._wake.set()

    def wait_for(self, future: "Future[Any]") -> Any:
        """The result of a posted action; None if it was given up, or if the store does not answer."""
        return future.result() if self._wait(future.done) else None

    def close(self) -> tuple[int, int]:
        """Waits (a bounded time) until everything is delivered; returns how many lines of metrics and how many other records are not."""
        self._closing.set()
        self._wake.set()
        if self._wait(self._done.is_set):
            return 0, 0
        self._abandoned.set()
        self._wake.set()
        return sum(file.remaining() for file in self._files), len(self._actions)

    def _wait(self, done: Callable[[], bool]) -> bool:
        start = time.monotonic()
        while not done():
            waited = time.monotonic() - max(start, self._moved)
            if (self._failing and (self._gave_up or waited > PATIENCE_SECONDS)) or waited > SILENCE_SECONDS:
                self._gave_up = True
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        session = None
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # asked before delivering: what was recorded before it is then delivered
            try:
                if session is None:
                    session = self._connect()
                    self._progressed()
                self._deliver(session)
                self._failing = False
                if closing:
                    break
            except Exception as error:  # whatever it is, the stage goes on
                self._failed(error)
            self._rest()
        self._done.set()

    def _rest(self) -> None:
        """Until there is something to do; after a failure new records are no reason to hurry, only the end of the stage is."""
        if not self._failing:
            self._wake.wait(BEAT_SECONDS)
            self._wake.clear()
        elif self._closing.is_set():
            time.sleep(BEAT_SECONDS / 4)
        else:
            self._closing.wait(BEAT_SECONDS)

    def _deliver(self, session: S) -> None:
        for file in list(self._files):
            points, end = file.next()
            while end > file.offset:
                self._attempt(session, partial(_send, points))
                file.advance(end)
                points, end = file.next()
        while self._actions and not self._abandoned.is_set():
            action, future = self._actions[0]
            future.set_result(self._attempt(session, action))
            self._actions.popleft()

    def _attempt(self, session: S, action: Callable[[S], Any]) -> Any:
        """Calls `action`. Raises when the store does not answer; gives a record up that a store which answers refuses again and again."""
        result = None
        try:
            result = action(session)
        except Exception as error:
            if not session.answers():
                raise
            self._refusals += 1
            if self._refusals < ATTEMPTS:
                raise
            log.warning("tracking: a record was refused and is left out: %s", self._describe(error))
        self._refusals = 0
        self._progressed()
        return result

    def _progressed(self) -> None:
        self._failing = False
        self._moved = time.monotonic()

    def _failed(self, error: Exception) -> None:
        self.reason = self._describe(error)
        self._failing = True
        if not self._told:
            self._told = True
            log.info("tracking: going on without the store, which is tried again every few seconds (%s)", self.reason)


def _send(points: list[Point], session: Session) -> None:
    session.send(points)

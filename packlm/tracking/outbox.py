"""Sends a stage's records from a background thread to a store that may be slow or down, so that the stage never waits for it.

Records are sent in the order in which they were posted. While the store does not answer they wait: metrics in the file that they are read
from, everything else in memory. At the end of the stage there is a bounded wait for the rest.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from operator import methodcaller
from pathlib import Path
from typing import Any, Protocol

from packlm.tracking.metrics_follower import MetricsFollower, Point

log = logging.getLogger("packlm")

POLL_SECONDS = 2.0
"""Between two looks for new records, and between two attempts while the store does not answer."""
UNREACHABLE_SECONDS = 5.0
"""How long a stage waits at its end for a store that does not answer."""
STALL_SECONDS = 120.0
"""How long a stage waits for one record on its way while nothing has failed."""
ATTEMPTS = 3
"""How often a record is sent that a store which answers refuses."""


class Session(Protocol):
    """An open connection to the store."""

    def send(self, points: list[Point]) -> None:
        """Stores those points that it does not have yet."""

    def answers(self) -> bool:
        """Whether the store answers a plain request."""


Action = Callable[[Any], Any]
"""What is called with the session."""


class Outbox:
    """The thread and its queue.

    Args:
        connect: opens the session, in the thread; called again while it raises.
        describe: makes an exception readable, without credentials.
    """

    def __init__(self, connect: Callable[[], Session], describe: Callable[[Exception], str]):
        self._connect = connect
        self._describe = describe
        self._actions: deque[tuple[Action, Future[Any]]] = deque()
        self._followers: list[MetricsFollower] = []
        self._refusals = 0
        self._failing = False
        self._failure_logged = False
        self._last_progress = time.monotonic()
        self._timed_out = False
        self._wake, self._closing, self._abandoned, self._done = (threading.Event() for _ in range(4))
        self.reason = "the store does not answer"
        """Why the last attempt failed."""
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def post(self, action: Action) -> "Future[Any]":
        """Queues `action`, which the thread calls with the session; the future holds its result, or None if it was refused."""
        future: Future[Any] = Future()
        self._actions.append((action, future))
        self._wake.set()
        return future

    def follow(self, path: Path) -> None:
        """Sends the metrics file `path`, and what is appended to it from now on."""
        self._followers.append(MetricsFollower(path))
        self._wake.set()

    def wait_for(self, future: "Future[Any]") -> Any:
        """The result of a posted action; None if it was refused or if the store does not answer."""
        return future.result() if self._wait(future.done) else None

    def close(self) -> tuple[int, int]:
        """Waits (a bounded time) until everything is sent; returns (lines of metrics, other records) that were not."""
        self._closing.set()
        self._wake.set()
        if self._wait(self._done.is_set):
            return 0, 0
        self._abandoned.set()
        self._wake.set()
        return sum(follower.remaining() for follower in self._followers), len(self._actions)

    def _wait(self, done: Callable[[], bool]) -> bool:
        start = time.monotonic()
        while not done():
            waited = time.monotonic() - max(start, self._last_progress)
            if (self._failing and (self._timed_out or waited > UNREACHABLE_SECONDS)) or waited > STALL_SECONDS:
                self._timed_out = True
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        session = None
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # read before sending: what was posted before it is then sent
            try:
                if session is None:
                    session = self._connect()
                    self._progressed()
                self._deliver(session)
                self._failing = False
                if closing:
                    break
            except Exception as error:  # tracking never stops a stage
                self._failed(error)
            self._pause()
        self._done.set()

    def _pause(self) -> None:
        """Waits until there is something to do; after a failure only the end of the stage shortens the wait, not new records."""
        if not self._failing:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        elif self._closing.is_set():
            time.sleep(POLL_SECONDS / 4)
        else:
            self._closing.wait(POLL_SECONDS)

    def _deliver(self, session: Session) -> None:
        for follower in list(self._followers):
            points, end = follower.next()
            while end > follower.offset:
                self._attempt(session, methodcaller("send", points))
                follower.offset = end
                points, end = follower.next()
        while self._actions and not self._abandoned.is_set():
            action, future = self._actions[0]
            future.set_result(self._attempt(session, action))
            self._actions.popleft()

    def _attempt(self, session: Session, action: Action) -> Any:
        """Calls `action`. Raises if the store does not answer; drops a record that a store which answers refuses `ATTEMPTS` times."""
        result = None
        try:
            result = action(session)
        except Exception as error:
            if not session.answers():
                raise
            self._refusals += 1
            if self._refusals < ATTEMPTS:
                raise
            log.warning("tracking: the store refused a record, which is dropped: %s", self._describe(error))
        self._refusals = 0
        self._progressed()
        return result

    def _progressed(self) -> None:
        self._failing = False
        self._last_progress = time.monotonic()

    def _failed(self, error: Exception) -> None:
        self.reason = self._describe(error)
        self._failing = True
        if not self._failure_logged:
            self._failure_logged = True
            log.info("tracking: the store does not answer; continuing, and retrying every few seconds (%s)", self.reason)

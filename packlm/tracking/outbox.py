"""Sends a stage's records, in the order in which they were posted, from a thread to a store that may be slow or down.

While the store does not answer the records wait, and the thread tries again every two seconds. It runs in a process of its own
(`packlm.tracking.sender_main`), where nobody minds if a call to the store never returns.
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
ATTEMPTS = 3
"""How often a record is sent that the store refuses."""


class Session(Protocol):
    """An open connection to the store."""

    def send(self, points: list[Point]) -> None:
        """Stores those points that it does not have yet."""

    def refused(self, error: Exception) -> bool:
        """Whether `error` means that the store answers but will never take the record."""


Action = Callable[[Any], Any]
"""What is called with the session."""


class Outbox:
    """The thread and its queue.

    Args:
        connect: opens the session, in the thread; called again while it raises.
        describe: makes an exception readable, without credentials.
        report: is told, in the thread, (kind, value) of what happens: `offset` [file, bytes sent], `failed` and `refused` why, `closed`.
    """

    def __init__(
        self,
        connect: Callable[[], Session],
        describe: Callable[[Exception], str],
        report: Callable[[str, Any], None] = lambda kind, value: None,
    ):
        self._connect = connect
        self._describe = describe
        self._report = report
        self._actions: deque[tuple[Action, Future[Any]]] = deque()
        self._followers: list[MetricsFollower] = []
        self._refusals = 0
        self._failing = False
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

    def finish(self) -> None:
        """Ends the thread when everything is sent that was posted before; does not wait for it."""
        self._closing.set()
        self._wake.set()

    def close(self, seconds: float) -> tuple[int, int]:
        """Waits until everything is sent, but not longer than `seconds`; returns (lines of metrics, other records) that were not."""
        self.finish()
        if self._done.wait(seconds):
            return 0, 0
        self._abandoned.set()
        self._wake.set()
        return sum(follower.remaining() for follower in self._followers), len(self._actions)

    def _work(self) -> None:
        session = None
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # read before sending: what was posted before it is then sent
            try:
                if session is None:
                    session = self._connect()
                self._deliver(session)
                self._failing = False
                if closing:
                    break
            except Exception as error:  # tracking never stops a stage
                self._failing = True
                self.reason = self._describe(error)
                self._report("failed", self.reason)
            self._pause()
        self._done.set()
        self._report("closed", not self._abandoned.is_set())

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
                self._report("offset", [str(follower.path), end])
                points, end = follower.next()
        while self._actions and not self._abandoned.is_set():
            action, future = self._actions[0]
            result = self._attempt(session, action)
            self._actions.popleft()
            future.set_result(result)

    def _attempt(self, session: Session, action: Action) -> Any:
        """Calls `action`. Raises if the store cannot take it now; drops a record that the store refuses `ATTEMPTS` times."""
        result = None
        try:
            result = action(session)
        except Exception as error:
            if not session.refused(error):
                raise
            self._refusals += 1
            if self._refusals < ATTEMPTS:
                raise
            self._report("refused", self._describe(error))
        self._refusals = 0
        return result

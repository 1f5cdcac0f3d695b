"""The stage's side of the process that sends its records (`packlm.tracking.sender_main`): starts it, asks it, and ends it in time.

A process, because nothing else can be ended: a thread in a call to a store that sends a byte every two seconds, or in SQLite's wait for a
lock, keeps the interpreter from exiting (libraries join their thread pools), and cannot be interrupted.
"""

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from packlm.base import json_text
from packlm.tracking.metrics_follower import MetricsFollower
from packlm.tracking.runs import Target

log = logging.getLogger("packlm")

PREPARING_SECONDS = 60.0
"""How long a stage waits in all for what is no store's fault: the import of mlflow, and the creation of a new SQLite file."""
REGISTRY_SECONDS = 60.0
"""How long a stage waits in all for the registry, once the store has taken every record before the model: a large one takes a while."""
SYNC_STALL_SECONDS = 60.0
"""How long `sync` waits for one record on its way while nothing has failed."""


class Sender:
    """The running process.

    Args:
        target: where the records go, and where they are read from.
        seconds: how long the stage waits in all for the store.
        patient: `seconds` begin anew whenever something has arrived, and count only while the store fails (`sync`).
    """

    def __init__(self, target: Target, seconds: float, patient: bool = False):
        self._seconds, self._patient = seconds, patient
        self._waited = {"store": 0.0, "preparing": 0.0, "registry": 0.0}
        self._preparing, self._failing, self._ended, self._killed = True, False, False, False
        self._closed: bool | None = None
        self._began: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._ids = itertools.count(1)
        self._followers: dict[str, MetricsFollower] = {}
        self.num_sent = 0
        """Records of the spool that have arrived."""
        self.num_unanswered = 0
        """Requests that the store did not answer in time."""
        self.reason = "the store does not answer"
        """Why the last attempt failed."""
        root = str(Path(__file__).parents[2])
        program = f"import sys; sys.path.insert(0, {root!r}); from packlm.tracking import sender_main; sender_main.main()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # may hold credentials; what matters is reported
            start_new_session=True,  # a signal for the stage is the stage's to handle
        )
        assert self._process.stdin
        os.set_blocking(self._process.stdin.fileno(), False)  # the stage never waits for the process to read
        self._tell(target.model_dump(mode="json"))
        self._reader = threading.Thread(target=self._read, name="tracking", daemon=True)
        self._reader.start()

    @property
    def prepared(self) -> bool:
        """Whether mlflow is imported and the store's file, if it is one, exists."""
        return not self._preparing

    def wake(self) -> None:
        """Says that the spool has grown."""
        self._write(b"\n")

    def follow(self, path: Path) -> None:
        """Counts the lines of a metrics file that has been recorded for following."""
        self._followers[str(path)] = MetricsFollower(path)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Calls a method of `Runs` after all earlier records, and returns its result; None if it was refused or is not answered in time."""
        number = next(self._ids)
        self._tell({"id": number, "do": do, "arguments": arguments})
        if self._wait(lambda: number in self._began or number in self._answers, "store", self._seconds):
            if self._wait(lambda: number in self._answers, "registry", REGISTRY_SECONDS):
                return self._answers[number]
            self._waited["store"] = self._seconds  # it has had its time
        self.num_unanswered += 1
        return None

    def close(self) -> bool:
        """Waits, as long as there is time, until everything has arrived, and ends the process; returns whether it has."""
        self._tell({"close": True})
        self._wait(lambda: self._closed is not None, "store", self._seconds)
        self._killed = True
        self._process.kill()
        self._process.wait()
        self._reader.join()  # what was reported before the end
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return bool(self._closed)

    def remaining_lines(self) -> int:
        """Lines of the metrics files that have not arrived."""
        return sum(follower.remaining() for follower in self._followers.values())

    def _wait(self, done: Callable[[], bool], clock: str, seconds: float) -> bool:
        last, progress = time.monotonic(), self._progress()
        while not done():
            if self._ended:
                return done()
            time.sleep(0.02)
            now = time.monotonic()
            running = "preparing" if self._preparing else clock
            self._waited[running] += now - last
            last = now
            if self._patient and self._progress() != progress:
                progress, self._waited[clock] = self._progress(), 0.0
            limit = SYNC_STALL_SECONDS if self._patient and not self._failing else seconds
            if self._waited[running] > (PREPARING_SECONDS if running == "preparing" else limit):
                return False
        return True

    def _progress(self) -> tuple[int, int]:
        return self.num_sent, sum(follower.offset for follower in self._followers.values())

    def _tell(self, message: dict[str, Any]) -> None:
        self._write(json_text.dumps(message).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # it has ended, or does not read
            os.write(self._process.stdin.fileno(), data)  # type: ignore[union-attr]

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with suppress(ValueError):
                report = json_text.loads(line)
                self._note(report["kind"], report["value"])
        if self._closed is None and not self._killed:
            self.reason = "the process that sends the records has ended"
        self._preparing, self._ended = False, True

    def _note(self, kind: str, value: Any) -> None:
        match kind:
            case "preparing":
                self._preparing = value
            case "sent":
                self.num_sent += 1
                self._failing = False
            case "offset":
                path, offset = value
                self._failing = False
                self._followers.setdefault(path, MetricsFollower(Path(path))).offset = offset
            case "began":
                self._began.add(value)
            case "answer":
                number, answer = value
                self._answers[number] = answer
            case "failed":
                if self.reason == "the store does not answer" and not self._failing:
                    log.info("tracking: the store does not answer; continuing, and retrying every few seconds (%s)", value)
                self.reason, self._failing = value, True
            case "refused":
                log.warning("tracking: the store refused a record, which is dropped: %s", value)
            case "closed":
                self._closed = value

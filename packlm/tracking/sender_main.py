"""The process that sends a stage's records to MLflow, started by `packlm.tracking.sender`.

It reads the stage's spool as it grows. On standard input: the `Target`, then requests, a JSON object a line: `{"id": 1, "do": METHOD,
"arguments": {...}}`, `{"close": true}`, or an empty line that says that the spool has grown. On standard output: what happened,
`{"kind": ..., "value": ...}`. It ends when standard input is closed, so with the stage, however that ends, or is killed.
"""

import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from packlm.base import json_text
from packlm.base.credentials import learn_address
from packlm.tracking import runs, spool, store
from packlm.tracking.outbox import Outbox
from packlm.tracking.runs import Runs, Target

POLL_SECONDS = 0.5
"""Between two looks at the spool."""


class Reports:
    """Writes what happens for the stage to read; without the stage there is nothing left to do."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, kind: str, value: Any) -> None:
        try:
            with self._lock:
                self._stream.write(json_text.dumps({"kind": kind, "value": value}) + "\n")
                self._stream.flush()
        except OSError:
            os._exit(1)


class SpoolReader:
    """Posts the records of a spool to the outbox as they are appended."""

    def __init__(self, path: Path, outbox: Outbox, reports: Reports):
        self.path, self.outbox, self.reports = path, outbox, reports
        self._offset = 0

    def read(self) -> None:
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self._offset)
                for line in stream:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    self._offset += len(line)
                    self._post(spool.parse(line))
        except FileNotFoundError:
            pass

    def _post(self, record: spool.TrackingRecord | None) -> None:
        if record and record.do == "follow":
            self.outbox.follow(Path(record.arguments["path"]))
        if record is None or record.do in ("begin", "follow"):
            action = self.outbox.post(lambda runs: None)
        else:
            action = self.outbox.post(lambda runs: getattr(runs, record.do)(**record.arguments))
        action.add_done_callback(lambda future: self.reports("sent", None))


def main() -> None:
    reports = Reports(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what mlflow prints is no report
    requests = _requests()
    first = next((line for line in requests if line.strip()), None)
    if first is None:
        return
    target = Target.model_validate(json_text.loads(first))
    learn_address(target.uri)
    sys.argv = [f"packlm {target.stage}"]  # MLflow shows it as the run's source
    outbox = Outbox(lambda: _connect(target, reports), lambda error: store.describe(error, target.uri), reports)
    reader = SpoolReader(target.spool, outbox, reports) if target.spool else None
    for line in requests:
        if reader:
            reader.read()
        if line.strip():
            _answer(json_text.loads(line), outbox, reports)
    os._exit(0)  # a call to the store may be under way in the thread, or in threads of its libraries


def _answer(request: dict[str, Any], outbox: Outbox, reports: Reports) -> None:
    if request.get("close"):
        outbox.finish()
        return

    def act(session: Runs) -> Any:
        reports("began", request["id"])
        return getattr(session, request["do"])(**request["arguments"])

    outbox.post(act).add_done_callback(lambda future: reports("answer", [request["id"], future.result()]))


def _connect(target: Target, reports: Reports) -> Runs:
    reports("preparing", True)
    store.mlflow()
    if not target.uri.startswith("http"):  # another second of imports, of what opens a database
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    reports("preparing", False)
    return runs.connect(target, lambda preparing: reports("preparing", preparing))


def _requests() -> Iterator[bytes]:
    """The lines of standard input, and an empty one after each wait without any; ends with the input."""
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if not ready:
            yield b"\n"
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line + b"\n" for line in lines)

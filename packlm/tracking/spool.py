"""What a stage has recorded and MLflow may not have yet, on the disk: written before it is sent, deleted when all of it has arrived.

run.dir/tracking/STAGE.jsonl    a record a line, in the order in which they are to be sent: {"do": "params", "arguments": {...}}
run.dir/tracking/STAGE/         the contents of tables and figures

So whatever happens to the stage or to the store, what is missing in MLflow is known by looking at the disk: a stage whose file exists was
not recorded completely.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from packlm.base import files, json_text

Kind = Literal["begin", "params", "metrics", "dataset", "table", "content", "artifact", "note", "describe_version", "follow", "end"]


class TrackingRecord(BaseModel):
    """One call of a method of `packlm.tracking.runs.Runs`; `begin` (the stage's start time) and `follow` (a metrics file) are none."""

    do: Kind
    arguments: dict[str, Any]

    @property
    def line(self) -> str:
        return json_text.dumps({"do": self.do, "arguments": self.arguments}) + "\n"


class Spool:
    """The records of one stage of a run."""

    def __init__(self, folder: Path, stage: str):
        self.stage = stage
        self.path = folder / "tracking" / f"{stage}.jsonl"
        self.contents = folder / "tracking" / stage
        self.records: list[TrackingRecord] = []
        """All records of the file; `read` and `add` fill it."""

    @property
    def started(self) -> float:
        """When the stage began, in Unix seconds."""
        return float(self.records[0].arguments["time"])

    @property
    def ended(self) -> bool:
        """Whether the stage has recorded its end; a stage that was killed has not."""
        return self.records[-1].do == "end"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the records for the block; a `PacklmError` if another process holds them: the stage is running."""
        with files.lock(self.path.with_name(f".{self.stage}.lock"), self.path):
            yield

    def begin(self, time: float, fresh: bool = False) -> None:
        """Starts the stage's records, or continues those of an attempt that ended early; with `fresh` the earlier ones are dropped.

        Raises:
            PacklmError: the file cannot be written.
        """
        self.records = [] if fresh else [record for record in read(self.path) if record.do != "end"]
        if not self.records or self.records[0].do != "begin":
            self.records.insert(0, TrackingRecord(do="begin", arguments={"time": time}))
        if fresh:
            shutil.rmtree(self.contents, ignore_errors=True)
        # Written anew, not appended to: the last line may have been cut by a kill.
        files.write_text(self.path, "".join(record.line for record in self.records))

    def resume(self, time: float) -> None:
        """As `begin`, but with the recorded end: nothing more is going to be added."""
        records = read(self.path)
        end = records[-1:] if records and records[-1].do == "end" else []
        self.begin(time)
        for record in end:
            self.add(record)

    def add(self, record: TrackingRecord, num_sent: int = 0) -> None:
        """Appends a record, unless an equal one after the first `num_sent` is waiting (its file is then sent as it is by now).

        Raises:
            OSError, ValueError: the disk is full, or a number is not finite.
        """
        if record.do in ("table", "content", "artifact", "note") and record in self.records[num_sent + 1 :]:  # the next is being sent
            return
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(record.line)
            if record.do == "end":
                stream.flush()
                os.fsync(stream.fileno())
        self.records.append(record)

    def keep(self, name: str, content: bytes) -> str:
        """Writes the content of the table or figure `name`; returns its path."""
        with files.atomic(self.contents / name) as stream:
            stream.write(content)
        return str((self.contents / name).resolve())

    def move(self, old: Path, new: Path) -> None:
        """Corrects the paths of all records to files below `old`, which will be renamed to `new`."""
        for record in read(self.path):
            path = Path(str(record.arguments.get("path", "")))
            if path.is_relative_to(old.resolve()):
                record.arguments["path"] = str(new.resolve() / path.relative_to(old.resolve()))
            self.records.append(record)
        files.write_text(self.path, "".join(record.line for record in self.records))

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.contents, ignore_errors=True)


def read(path: Path) -> list[TrackingRecord]:
    """The records of a file, without damaged lines; none if there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return [record for line in lines if (record := parse(line))]


def parse(line: bytes) -> TrackingRecord | None:
    try:
        return TrackingRecord.model_validate(json_text.loads(line))
    except (ValueError, ValidationError):
        return None

"""Tracking with MLflow: one parent run for a pipeline, one child run for each stage.

    with tracking.stage(config, "train") as recorder:
        recorder.params({"parameters": 1_234_567})
        recorder.follow_metrics(config.run.dir / "train" / "metrics.jsonl")

The ids of the runs are kept in `run.dir/tracking.json`: a stage started alone joins its parent, and a restarted one resumes its own run.
What a stage records is written to `run.dir/tracking/` (`packlm.tracking.spool`), sent by a process of its own (`packlm.tracking.sender`),
and deleted when MLflow has it. So a recorder never raises, a stage waits for the store no longer than `tracking.timeout_seconds`, and what
a store did not take, or a killed stage did not send, is sent by `sync`, or by `deliver` when the stage is run again. Only this package
imports mlflow, and only when there is something to record or to read. Under torchrun rank 0 records; with an empty `tracking.uri` nothing
is recorded.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.base.log import rank
from packlm.config import Config
from packlm.tracking import run_note, runs
from packlm.tracking.models import LoggedModel, declare_model, folder_of
from packlm.tracking.recorder import Recorder
from packlm.tracking.run_record import RunRecord, read_run
from packlm.tracking.runs import Target
from packlm.tracking.sender import Sender
from packlm.tracking.spool import Spool

__all__ = [
    "LoggedModel", "Recorder", "RunRecord", "begin", "declare_model", "deliver", "folder_of", "forget", "is_unsent", "move", "nest",
    "parent_run", "read_run", "stage", "sync",
]  # fmt: skip

log = logging.getLogger("packlm")

REMEDY = "`packlm sync` sends them, and so does the stage when it is run again (which also registers a model)"
"""What to do about unsent records."""


@contextmanager
def stage(config: Config, name: str, fresh: bool = False, results: Path | None = None) -> Iterator[Recorder]:
    """Records a stage: its run is RUNNING within the block, then FINISHED, FAILED, or KILLED if a signal ended it.

    After the block all that it recorded is in MLflow or on the disk: then, not earlier, the stage may be marked as complete.

    Args:
        fresh: whether the stage starts over (`--rebuild`) and gets a new run: the old one has points at the same steps already.
        results: the folder whose results the run's note is about; by default the run's.
    """
    if not _records(config):
        yield Recorder()
        return
    spool = Spool(config.run.dir, name)
    with ExitStack() as stack:
        try:
            stack.enter_context(spool.locked())
            if fresh:
                runs.forget(config.run.dir, name)
            spool.begin(time.time(), fresh)
            sender = Sender(_target(config, spool), config.tracking.timeout_seconds)
        except (PacklmError, OSError) as error:
            log.warning("tracking: the stage is not recorded: %s", error)
            yield Recorder()
            return
        recorder, status = Recorder(sender, spool), "FINISHED"
        try:
            recorder.settings(config.model_dump(mode="json"))
            _record_note(recorder, config, results)
            yield recorder
        except (Stopped, KeyboardInterrupt):
            status = "KILLED"
            raise
        except BaseException as error:
            status = "FINISHED" if isinstance(error, SystemExit) and not error.code else "FAILED"
            raise
        finally:
            _record_note(recorder, config, results)
            recorder.end(status)
            if unsent := _close(sender, spool, config):
                log.warning("tracking: %s; %s", unsent, REMEDY)


def begin(config: Config, name: str) -> None:
    """Notes on the disk that a stage is going to be recorded (`is_unsent`), for one that records after its result is complete."""
    if _records(config):
        spool = Spool(config.run.dir, name)
        try:
            with spool.locked():
                spool.begin(time.time())
        except PacklmError as error:
            log.warning("tracking: %s", error)


def forget(config: Config, name: str) -> None:
    """Makes the stage record in a new run from now on, since its parameters have changed."""
    if _records(config):
        runs.forget(config.run.dir, name)


def parent_run(config: Config) -> str | None:
    """The id of the pipeline's run while a stage of it is being recorded; None if the store has not made it in time."""
    deadline = time.monotonic() + config.tracking.timeout_seconds
    while _records(config):
        if (parent := runs.RunIds.read(config.run.dir).parent) or time.monotonic() > deadline:
            return parent
        time.sleep(0.1)
    return None


def nest(config: Config, parent: str) -> None:
    """Before a pipeline is recorded: makes its run a child of another one."""
    ids = runs.RunIds.read(config.run.dir)
    ids.above = parent
    ids.write(config.run.dir)


def is_unsent(config: Config, name: str) -> bool:
    """Whether a stage has begun to record and MLflow is not known to have all of it: it was killed, or the store did not answer."""
    return _records(config) and Spool(config.run.dir, name).path.exists()


def move(config: Config, name: str, old: Path, new: Path) -> None:
    """Before the folder `old` with files of a stage is renamed to `new`: corrects what is recorded and MLflow does not have."""
    if is_unsent(config, name):
        spool = Spool(config.run.dir, name)
        try:
            with spool.locked():
                spool.move(old, new)
        except PacklmError as error:
            log.warning("tracking: %s", error)


def deliver(config: Config, name: str) -> None:
    """Sends what a stage whose result is complete has recorded and MLflow does not have; one look at the disk if there is nothing."""
    if not is_unsent(config, name):
        return
    spool = Spool(config.run.dir, name)
    try:
        with spool.locked():
            spool.resume(time.time())
            finished = spool.ended and spool.records[-1].arguments.get("status") == "FINISHED"
            if not finished:
                spool.begin(time.time())
            sender = Sender(_target(config, spool), config.tracking.timeout_seconds)
            recorder = Recorder(sender, spool)
            recorder.follow_again()
            if not finished:
                _record_note(recorder, config)
                recorder.end("FINISHED")
            if unsent := _close(sender, spool, config):
                log.warning("tracking: %s; %s", unsent, REMEDY)
            else:
                log.info("tracking: sent what MLflow did not have of stage %s", name)
    except (PacklmError, OSError) as error:
        log.warning("tracking: nothing is sent: %s", error)


def sync(config: Config) -> None:
    """Sends what MLflow does not have yet of any stage: unsent records, and lines of `metrics.jsonl`.

    Raises:
        RequestError: no stage has recorded anything, or `tracking.uri` is empty.
        PacklmError: the store does not answer.
    """
    folder = config.run.dir
    spools = {path.stem: Spool(folder, path.stem) for path in folder.glob("tracking/*.jsonl")}
    spools |= {path.parent.name: Spool(folder, path.parent.name) for path in folder.glob("*/metrics.jsonl")}
    if not spools:
        raise RequestError(f"{folder}: nothing to send: no unsent records and no metrics.jsonl of any stage; `packlm train` writes them")
    if not config.tracking.uri:
        raise RequestError("tracking.uri is empty: there is nowhere to send the records to")
    failures = []
    for name, spool in sorted(spools.items()):
        try:
            with spool.locked():
                unsent = _sync_stage(config, spool)
        except PacklmError as error:
            failures.append(f"stage {name}: {error}")
            continue
        if unsent:
            failures.append(f"stage {name}: {unsent}")
        else:
            log.info("stage %s: all records and metrics are in MLflow", name)
    if failures:
        raise PacklmError("; ".join(failures))


def _sync_stage(config: Config, spool: Spool) -> str:
    """Sends the records of one stage; returns what is missing as text."""
    metrics = config.run.dir / spool.stage / "metrics.jsonl"
    recorded = spool.path.exists()
    spool.resume(time.time())
    killed = recorded and not spool.ended
    sender = Sender(_target(config, spool), config.tracking.timeout_seconds, patient=True)
    recorder = Recorder(sender, spool)
    recorder.follow_again()
    if metrics.exists() and not spool.ended and not any(record.do == "follow" for record in spool.records):
        recorder.follow_metrics(metrics)
    if killed:
        sender.ask("end", status="KILLED", time=spool.path.stat().st_mtime)
    elif not recorded:
        recorder.end("")
    unsent = _close(sender, spool, config)
    if killed and not unsent:
        spool.begin(time.time())  # the mark that the stage has not ended; it records the rest when it is run again
    return unsent


def _records(config: Config) -> bool:
    return rank() == 0 and bool(config.tracking.uri)


def _target(config: Config, spool: Spool) -> Target:
    return Target(
        uri=config.tracking.uri,
        experiment=config.tracking.experiment,
        folder=config.run.dir.resolve(),
        run=config.run.name,
        stage=spool.stage,
        started=spool.started,
        spool=spool.path.resolve(),
    )


def _close(sender: Sender, spool: Spool, config: Config) -> str:
    """Waits for the rest to arrive and deletes the spool if all has; returns what has not as text."""
    lines, others = 0, sender.num_unanswered
    if sender.close():
        spool.delete()
    else:
        lines, others = sender.remaining_lines(), others + len(spool.records) - max(sender.num_sent, 1)  # the first is the beginning
    if not lines and not others:
        return ""
    store = without_credentials(config.tracking.uri)
    return f"{lines:,} lines of metrics and {others:,} other records were not sent to {store} ({sender.reason})"


def _record_note(recorder: Recorder, config: Config, results: Path | None = None) -> None:
    try:
        text = run_note.note(config, results)
    except PacklmError as error:  # a damaged file: the stage that reads it will fail on it
        log.warning("tracking: the run gets no note: %s", error)
    else:
        recorder.note(text)

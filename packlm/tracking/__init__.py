"""Tracking with MLflow: one parent run for a pipeline, one child run for each stage.

    with tracking.stage(config, "train") as recorder:
        recorder.params({"parameters": 1_234_567})
        recorder.follow_metrics(config.run.dir / "train" / "metrics.jsonl")

The ids of the runs are kept in `run.dir/tracking.json`: a stage started alone joins its parent, and a restarted one resumes its own run.
Everything is sent from a thread (`packlm.tracking.outbox`): a recorder never raises, and waits for the store only where it returns an
answer (`log_model`, `champion`, `set_champion`). Only this package imports mlflow, and only when there is something to record or to read.
Under torchrun rank 0 records; with an empty `tracking.uri` nothing is recorded.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.base.log import rank
from packlm.config import Config
from packlm.tracking import run_note, runs, store
from packlm.tracking.models import LoggedModel, declare_model, folder_of
from packlm.tracking.outbox import Outbox
from packlm.tracking.recorder import Recorder, flat
from packlm.tracking.run_record import RunRecord, read_run

__all__ = ["LoggedModel", "Recorder", "RunRecord", "declare_model", "folder_of", "read_run", "stage", "sync"]

log = logging.getLogger("packlm")


@contextmanager
def stage(config: Config, name: str, fresh: bool = False) -> Iterator[Recorder]:
    """Records a stage: its run is RUNNING within the block, then FINISHED, FAILED, or KILLED if a signal ended it.

    Args:
        fresh: whether the stage starts over (`--rebuild`) and gets a new run: the old one has points at the same steps already.
    """
    if rank() != 0 or not config.tracking.uri:
        yield Recorder()
        return
    if fresh:
        runs.forget(config.run.dir, name)
    outbox = _open_outbox(config, name)
    status = "FINISHED"
    try:
        _post_note(outbox, config)
        yield Recorder(outbox)
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    except BaseException as error:
        status = "FINISHED" if isinstance(error, SystemExit) and not error.code else "FAILED"
        raise
    finally:
        _post_note(outbox, config)
        outbox.post(lambda runs: runs.end(status))
        lines, others = outbox.close()
        if lines or others:
            log.warning(
                "tracking: %d lines of metrics and %d other records were not sent to %s (%s); `packlm sync` sends the metrics, "
                "and so does the stage when it is resumed",
                lines, others, without_credentials(config.tracking.uri), outbox.reason,
            )  # fmt: skip


def sync(config: Config) -> None:
    """Sends the lines of each `metrics.jsonl` below `run.dir` that MLflow does not have yet.

    Raises:
        RequestError: there are no metrics, or `tracking.uri` is empty.
        PacklmError: the store does not answer.
    """
    paths = sorted(config.run.dir.glob("*/metrics.jsonl"))
    if not paths:
        raise RequestError(f"{config.run.dir}: no metrics.jsonl of any stage here; `packlm train` writes one")
    if not config.tracking.uri:
        raise RequestError("tracking.uri is empty: there is nowhere to send the metrics to")
    for path in paths:
        outbox = _open_outbox(config, path.parent.name)
        outbox.follow(path)
        outbox.post(lambda runs: runs.end(runs.status_before))
        lines, others = outbox.close()
        if lines or others:
            raise PacklmError(f"{path}: {lines:,} lines were not sent to {without_credentials(config.tracking.uri)}: {outbox.reason}")
        log.info("%s: all metrics are in MLflow", path)


def _open_outbox(config: Config, name: str) -> Outbox:
    """Starts the thread that sends the records of stage `name`; the settings go to the parent first."""
    started = time.time()
    outbox = Outbox(lambda: runs.connect(config, name, started), lambda error: store.describe(error, config.tracking.uri))
    settings = flat(config.model_dump(mode="json"))
    outbox.post(lambda runs: runs.params(runs.parent, settings))
    return outbox


def _post_note(outbox: Outbox, config: Config) -> None:
    try:
        text = run_note.note(config)
    except PacklmError as error:  # a damaged file: the stage that reads it will fail on it
        log.warning("tracking: the run gets no note: %s", error)
    else:
        outbox.post(lambda runs: runs.note(text))

"""The record of what was run, in MLflow: one parent run for a pipeline, one child run for each stage.

    with tracking.stage(config, "train") as recorder:
        recorder.params({"parameters": 1_234_567})
        recorder.mirror(config.run.dir / "train" / "metrics.jsonl")

The ids of the runs are kept in `run.dir/tracking.json`, so that a stage started alone joins its parent, and a restarted one goes
on in its own run. Everything is sent from a thread (`packlm.tracking.outbox`): no method of a recorder waits for the store, except
`log_model`, and none raises. Only this package imports mlflow, and only when there is something to record or to read. Under torchrun,
rank 0 records; where `tracking.uri` is empty, nobody does.
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
from packlm.tracking.outbox import Outbox
from packlm.tracking.reading import folder_of, read_run
from packlm.tracking.recorder import Recorder, flat
from packlm.tracking.served_model import declare_model

__all__ = ["Recorder", "declare_model", "folder_of", "read_run", "stage", "sync"]

log = logging.getLogger("packlm")


@contextmanager
def stage(config: Config, name: str, fresh: bool = False) -> Iterator[Recorder]:
    """Records a stage: its run is RUNNING within the block, then FINISHED, FAILED, or KILLED if a signal ended it.

    Args:
        fresh: the stage starts over (`--rebuild`), so it gets a new run: its points lie at steps that the old run has already.
    """
    if rank() != 0 or not config.tracking.uri:
        yield Recorder()
        return
    if fresh:
        runs.forget(config.run.dir / "tracking.json", name)
    courier = _courier(config, name)
    status = "FINISHED"
    try:
        _post_note(courier, config)
        yield Recorder(courier)
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    except BaseException as error:
        status = "FINISHED" if isinstance(error, SystemExit) and not error.code else "FAILED"
        raise
    finally:
        _post_note(courier, config)
        courier.post(lambda runs: runs.end(status))
        _warn_of_unsent(courier, config)


def sync(config: Config) -> None:
    """Sends what is in the `metrics.jsonl` of each stage below `run.dir` and is not in MLflow yet.

    Raises:
        RequestError: no metrics there, or nowhere to send them.
        PacklmError: MLflow does not answer.
    """
    found = sorted(config.run.dir.glob("*/metrics.jsonl"))
    if not found:
        raise RequestError(f"{config.run.dir}: no metrics.jsonl of any stage here; `make train` writes one")
    if not config.tracking.uri:
        raise RequestError("tracking.uri is empty: there is nowhere to send the metrics to")
    for path in found:
        name = path.parent.name
        courier = _courier(config, name)
        courier.follow(path)
        courier.post(lambda runs: runs.end(runs.status_before))
        lines, others = courier.close()
        if lines or others:
            raise PacklmError(f"{path}: {lines:,} lines were not sent to {without_credentials(config.tracking.uri)}: {courier.reason}")
        log.info("%s: all of it is in MLflow", path)


def _courier(config: Config, name: str) -> Outbox[runs.Runs]:
    """Starts the thread that records stage `name`; the settings go to the parent first."""
    started = time.time()
    courier = Outbox(lambda: runs.connect(config, name, started), lambda error: store.describe(error, config.tracking.uri))
    settings = flat(config.model_dump(mode="json"))
    courier.post(lambda runs: runs.params(runs.parent, settings))
    return courier


def _post_note(courier: Outbox[runs.Runs], config: Config) -> None:
    try:
        text = run_note.note(config)
    except PacklmError as error:  # a damaged file: its own stage complains
        log.warning("tracking: no note on the run: %s", error)
    else:
        courier.post(lambda runs: runs.note(text))


def _warn_of_unsent(courier: Outbox[runs.Runs], config: Config) -> None:
    lines, others = courier.close()
    if lines or others:
        log.warning(
            "tracking: %d lines of metrics and %d other records were not sent to %s (%s); the lines are sent by `python -m pipeline sync`, "
            "or when the stage goes on",
            lines, others, without_credentials(config.tracking.uri), courier.reason,
        )  # fmt: skip

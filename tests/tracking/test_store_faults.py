"""A store that fails costs a stage its deadline and no more, whatever the fault; `sync` sends the rest once there is a sound store."""

import json
import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import tracking
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.tracking import sqlite_file
from tests.mlflow_faults import fault

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

MakeConfig = Callable[..., Config]
SECONDS = 2.0
"""The deadline of these stages."""

STAGE = """
import json, logging, sys, time
from pathlib import Path
from packlm import config as configuration, tracking
logging.basicConfig(level=logging.INFO, format="%(message)s")
config = configuration.resolve({"run": {"name": "tiny"}, "tracking": json.loads(sys.argv[1])})
path = config.run.dir / "train" / "metrics.jsonl"
path.parent.mkdir(parents=True)
lines = [{"step": step, "time": 1.0, "train/loss": 9.0 - step, "validation/loss": 8.0 - step} for step in range(5)]
path.write_text("".join(json.dumps(line) + "\\n" for line in lines))
start = time.monotonic()
with tracking.stage(config, "train") as recorder:
    assert time.monotonic() - start < 1, "the start of a stage waits"
    recorder.follow_metrics(path)
    recorder.params({"a": 1})
    recorder.metrics({"seconds": 7.0})
    recorder.summary({"parameters": 3})
    recorder.table("samples.json", {"text": ["the cat"]})
    recorder.artifact(path, "files")
    while not recorder.sender.prepared:  # the import of mlflow is not what is timed
        time.sleep(0.02)
    start = time.monotonic()
print(time.monotonic() - start, time.time())
"""


def run_stage(folder: Path, uri: str, seconds: float = SECONDS) -> tuple[float, float, str]:
    """Seconds of the end of a stage and of the interpreter's exit after it, and its log."""
    command = [sys.executable, "-c", STAGE, json.dumps({"uri": uri, "timeout_seconds": seconds})]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    end, ended = map(float, result.stdout.split())
    return end, time.time() - ended, result.stderr


def content(config: Config) -> dict[str, Any]:
    """What MLflow has of the stage."""
    from mlflow import MlflowClient

    client, ids = MlflowClient(config.tracking.uri), json.loads((config.run.dir / "tracking.json").read_text())
    run, parent = client.get_run(ids["stages"]["train"]), client.get_run(ids["parent"])
    return {
        "status": (run.info.status, parent.info.status),
        "params": run.data.params,
        "metrics": run.data.metrics,
        "points": len(client.get_metric_history(run.info.run_id, "train/loss")),
        "curve": [point.value for point in client.get_metric_history(parent.info.run_id, "validation/loss")],
        "summary": parent.data.metrics,
        "artifacts": [item.path for item in client.list_artifacts(run.info.run_id)],
        "cell": parent.data.params["model.cell"],
        "note": "The recipe" in parent.data.tags["mlflow.note.content"],
    }


EXPECTED = {
    "status": ("FINISHED", "FINISHED"), "params": {"a": "1"}, "metrics": {"train/loss": 5.0, "validation/loss": 4.0, "seconds": 7.0},
    "points": 5, "curve": [8.0, 7.0, 6.0, 5.0, 4.0], "summary": {"parameters": 3.0, "validation/loss": 4.0},
    "artifacts": ["files", "samples.json"], "cell": "lstm", "note": True,
}  # fmt: skip


LONG = [pytest.param(mode, marks=pytest.mark.long) for mode in ("dripping", "error500", "half_closed", "locked_database", "read_only")]


@pytest.mark.parametrize("mode", ["refused", *LONG])  # all: `make torture`
def test_a_fault_costs_the_deadline_and_sync_sends_the_rest(make_config: MakeConfig, tmp_path: Path, mode: str) -> None:
    config = make_config()
    with fault(mode) as uri:
        end, exit_, log = run_stage(tmp_path, uri)
    assert end < SECONDS + 2 and exit_ < 2 + 1, (end, exit_, log)
    (line,) = [line for line in log.splitlines() if "were not sent" in line]
    assert line.startswith("tracking: 5 lines of metrics and 9 other records were not sent") and "packlm sync" in line
    assert "Traceback" not in log
    tracking.sync(config)
    assert content(config) == EXPECTED
    assert not list(config.run.dir.glob("tracking/*.jsonl"))


def test_an_up_to_date_stage_sends_what_it_had_not_sent(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("packlm"), "propagate", True)
    caplog.set_level(logging.INFO, logger="packlm")
    with fault("refused") as uri:
        run_stage(tmp_path, uri)
    config = make_config()
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"timeout_seconds": 60.0})})
    tracking.deliver(config, "train")
    assert "tracking: sent what MLflow did not have of stage train" in caplog.text
    assert content(config) == EXPECTED
    caplog.clear()
    tracking.deliver(config, "train")
    assert not caplog.text and not tracking.is_unsent(config, "train")


def test_a_killed_stage_is_killed_in_mlflow_after_sync_and_still_known_as_unfinished(make_config: MakeConfig) -> None:
    config = make_config()
    tracking.begin(config, "preprocess")
    tracking.sync(config)
    from mlflow import MlflowClient

    ids = json.loads((config.run.dir / "tracking.json").read_text())
    assert MlflowClient(config.tracking.uri).get_run(ids["stages"]["preprocess"]).info.status == "KILLED"
    assert tracking.is_unsent(config, "preprocess")


@pytest.mark.long
def test_a_server_that_is_restarted_gets_everything(make_config: MakeConfig, tmp_path: Path) -> None:
    with fault("restarted", restart_after=0.0) as uri:
        config = make_config(uri)
        _, _, log = run_stage(tmp_path, uri, seconds=5.0)
        for _ in range(60):
            if not list(config.run.dir.glob("tracking/*.jsonl")):
                break
            try:
                tracking.sync(config)
            except PacklmError:  # not up again yet
                time.sleep(1)
        assert content(config) == EXPECTED, log


CREATE = """
import os, signal, sys, time
from pathlib import Path
from packlm.tracking import sqlite_file, store
store.mlflow()
import mlflow.store.tracking.sqlalchemy_store
path, delays = Path(sys.argv[1]), [float(delay) for delay in sys.argv[2:]]
for delay in delays:  # a delay kills one process in the middle of it
    if not (child := os.fork()):
        sqlite_file.prepare(path, lambda preparing: None)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
children = []
for _ in range(3):  # at once
    if not (child := os.fork()):
        sqlite_file.prepare(path, lambda preparing: None)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.long
def test_a_store_survives_kills_while_it_is_created_and_creation_by_several(make_config: MakeConfig, tmp_path: Path) -> None:
    seed = int(os.environ.get("PACKLM_SEED", time.time_ns() % 10**6))
    print(f"PACKLM_SEED={seed}")
    rng = random.Random(seed)
    path = tmp_path / "store" / "mlflow.db"
    delays = [str(rng.uniform(0.05, 2.0)) for _ in range(8)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CREATE, str(path), *delays]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [item.name for item in path.parent.iterdir()] == ["mlflow.db"], "leftovers of killed attempts"
    _, _, log = run_stage(tmp_path, f"sqlite:///{path}", seconds=60.0)
    assert "were not sent" not in log
    assert content(make_config(f"sqlite:///{path}")) == EXPECTED


def test_an_empty_store_is_created_anew(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    sqlite_file.prepare(tmp_path / "mlflow.db", lambda preparing: None)
    sqlite_file.check(tmp_path / "mlflow.db")


def test_a_store_of_another_version_is_named_and_not_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    connection.execute("INSERT INTO alembic_version VALUES ('0123456789ab')")
    connection.commit()

    with pytest.raises(
        PacklmError, match=r"mlflow\.db: has the tables of another version of MLflow; back it up, then run `mlflow db upgrade"
    ):
        sqlite_file.prepare(path, lambda preparing: None)
    connection.execute("CREATE TABLE _alembic_tmp_tags (key INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(PacklmError, match=r"mlflow\.db: MLflow was killed while it created or upgraded it; move it away \(mv "):
        sqlite_file.prepare(path, lambda preparing: None)


def test_a_database_whose_writer_was_killed_within_a_transaction_is_used(tmp_path: Path) -> None:
    """The transaction is rolled back, as SQLite does it, by the process that looks at the file first."""
    path = tmp_path / "store.db"
    sqlite_file.prepare(path, lambda preparing: None)
    writer = (
        "import os, sqlite3, sys; store = sqlite3.connect(sys.argv[1]); store.execute('PRAGMA cache_size = 1'); "
        "store.execute('CREATE TABLE big (x)'); "
        "store.executemany('INSERT INTO big VALUES (?)', [('x' * 1000,)] * 2000); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", writer, str(path)], check=True)
    assert path.with_name("store.db-journal").stat().st_size, "the writer left no journal"
    sqlite_file.check(path)

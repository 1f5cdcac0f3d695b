"""Tracking without a store, and with servers that are down, broken, or come up later."""

import logging
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from packlm import tracking
from packlm.base.errors import PacklmError, RequestError
from tests.mlflow_faults import free_port, mlflow_server
from tests.tracking.reading import NO_MODEL, MakeConfig, WriteMetrics, history, ids, store

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")


def test_nothing_is_recorded_without_a_store_or_by_other_ranks(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tracking.stage(make_config(""), "train") as recorder:
        recorder.params({"a": 1})
        assert recorder.log_model(NO_MODEL) is None
    monkeypatch.setenv("RANK", "1")
    with tracking.stage(make_config(), "train") as recorder:
        recorder.metrics({"a": 1.0})
    assert not (tmp_path / "runs").exists()


class Broken(BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("kind", ["down", "hung", "broken"])
def test_training_goes_on_without_the_server(
    make_config: MakeConfig,
    write_metrics: WriteMetrics,
    warnings_logged: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    with HTTPServer(("127.0.0.1", 0), Broken) as server:  # listens; accepts in the kernel, and answers only if it is served
        if kind == "broken":
            threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1] if kind != "down" else free_port()
        config = make_config(tracking={"uri": f"http://someone:hunter2@127.0.0.1:{port}", "timeout_seconds": 2.0})
        path = write_metrics(config, range(1, 6))
        with tracking.stage(config, "train") as recorder:
            wait_for_import(recorder)  # which is not what is timed
            start = time.monotonic()
            recorder.follow_metrics(path)
            recorder.params({"a": 1})
            assert recorder.log_model(NO_MODEL) is None
        assert time.monotonic() - start < 4
        if kind == "broken":
            server.shutdown()
    (warning,) = [record.getMessage() for record in warnings_logged.records if record.levelno == logging.WARNING]
    assert "5 lines of metrics and 6 other records were not sent" in warning and "packlm sync" in warning
    assert "hunter2" not in warnings_logged.text


@pytest.mark.long
def test_pending_records_are_sent_when_the_server_comes_up(
    make_config: MakeConfig, write_metrics: WriteMetrics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    config = make_config(f"http://127.0.0.1:{port}")
    path = write_metrics(config, range(1, 6))
    with pytest.raises(PacklmError, match="5 lines of metrics and 2 other records were not sent"):
        tracking.sync(config)
    with ExitStack() as servers:
        with tracking.stage(config, "train") as recorder:
            recorder.follow_metrics(path)
            servers.enter_context(mlflow_server(tmp_path, port))
            write_metrics(config, range(6, 8))
            recorder.table("samples/first.json", {"text": ["the cat"]})
        run = ids(config)["stages"]["train"]
        assert history(config, run, "train/loss") == [(step, 10 - step / 10) for step in range(1, 8)]
        assert [item.path for item in store(config).list_artifacts(run)] == ["samples"]
        write_metrics(config, range(8, 10))
        tracking.sync(config)
        assert len(history(config, run, "train/loss")) == 9
        assert capfd.readouterr().out == ""  # which is for results


def test_sync_says_what_is_missing(make_config: MakeConfig, write_metrics: WriteMetrics) -> None:
    with pytest.raises(RequestError, match=r"no metrics.jsonl .*packlm train"):
        tracking.sync(make_config())
    config = make_config("")
    write_metrics(config, range(1, 2))
    with pytest.raises(RequestError, match=r"tracking\.uri is empty"):
        tracking.sync(config)


def wait_for_import(recorder: tracking.Recorder) -> None:
    """Waits until the process that sends the records has imported mlflow."""
    assert recorder.sender
    while not recorder.sender.prepared:
        time.sleep(0.05)

"""The evaluated model in MLflow's registry: registered by the stage, opened by its address, answering as MLflow asks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from packlm.config import Config, Tracking
from packlm.distributed import Ranks
from packlm.engine import Engine
from serve.evaluate import stage as evaluate_stage
from serve.generate import stage as generate_stage

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:.*type hint:UserWarning")


def test_the_evaluate_stage_registers_a_model_that_answers(
    made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    base = made("bpe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(base.run.dir / "model")
    tracked = base.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    config = base.model_copy(update={"run": base.run.model_copy(update={"dir": tmp_path / "run"}), "tracking": tracked})
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert "perplexity" in (evaluate_stage.evaluate(config, ranks) or "")
    generate_stage.generate(config, ranks)
    again = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"baselines": False})})
    evaluate_stage.evaluate(again, ranks)  # measured again, with the same weights
    assert "gets no note" not in caplog.text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        client = mlflow.MlflowClient(tracked.uri)
        ids = json.loads((tmp_path / "run" / "tracking.json").read_text())
        report = json.loads((tmp_path / "run" / "evaluate" / "validation.json").read_text(encoding="utf-8"))
        for run in (ids["parent"], ids["stages"]["evaluate"]):
            assert client.get_run(run).data.metrics["evaluate/validation/perplexity"] == pytest.approx(report["perplexity"])
        assert "samples.json" in [item.path for item in client.list_artifacts(ids["stages"]["generate"])]
        assert [version.version for version in client.search_model_versions(f"name = '{tracked.model_name}'")] == [1]
        version = client.get_model_version_by_alias(tracked.model_name, "champion")
        assert version.tags["weights"] == report["weights_digest"][:16] and f"{report['perplexity']:,.2f} per token" in version.description
        assert "evaluate/champion.json" in [item.path for item in client.list_artifacts(ids["stages"]["evaluate"], "evaluate")]
        mlflow.set_tracking_uri(tracked.uri)
        loaded = mlflow.pyfunc.load_model(f"models:/{tracked.model_name}@champion")
        rows = [{"prompt": "the cat"}, {"prompt": ""}]
        generated = loaded.predict(rows, params={"strategy": "beam", "samples": 2, "max_tokens": 5})
        scored = loaded.predict(rows, params={"task": "score"})
    engine = Engine.load(f"models:/{tracked.model_name}/1", store=tracked)
    expected = engine.generate(["the cat", ""], strategy="beam", samples=2, max_tokens=5)
    for answer, items in zip(generated, expected, strict=True):
        assert [item["text"] for item in answer["generations"]] == [item.text for item in items]
    log_probs = [score.log_prob for score in engine.score(["the cat", ""])]
    assert [answer["log_prob"] for answer in scored] == pytest.approx(log_probs, abs=1e-5)
    json.dumps([generated, scored])
    served(tracked, rows, [generated, scored])


def served(tracked: Tracking, rows: list[dict[str, str]], expected: list[Any]) -> None:
    """What `mlflow models serve` answers to requests, right ones and wrong ones."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    address = f"models:/{tracked.model_name}@champion"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "--env-manager", "local", "--port", str(port)]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where it looks for its web server
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracked.uri, "PATH": programs, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        for params, answers in zip(({"strategy": "beam", "samples": 2, "max_tokens": 5}, {"task": "score"}), expected, strict=True):
            assert ask(port, {"dataframe_records": rows, "params": params}) == (200, {"predictions": answers})
        for wrong, message in (
            ({"dataframe_records": rows, "params": {"task": "translate"}}, "task: 'translate' is none of generate, score"),
            ({"dataframe_records": [{"text": "the cat"}]}, "Model is missing inputs ['prompt']"),
            ({"dataframe_records": [{"prompt": None}]}, "prompts.0: Input should be a valid string, got None"),
            ({"inputs": rows, "params": {"top_p": 7.0}}, "generate.top_p: Input should be less than or equal to 1, got 7.0"),
            ({"dataframe_records": [*rows, {"prompt": "a" * 30_001}]}, "prompts.2: 30,001 characters; at most 30,000 are read"),
            ({"dataframe_records": rows, "params": {"samples": 9_000, "max_tokens": 60}}, "1,080,000 tokens (prompts x samples or beams"),
            ({"dataframe_records": [{"prompt": "a" * 1_000_001}], "params": {"task": "score"}}, "at most 1,000,000 are scored"),
        ):
            status, answer = ask(port, wrong)
            assert status == 400 and message in answer["message"] and "Traceback" not in json.dumps(answer)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def ask(port: int, request: dict[str, Any]) -> tuple[int, Any]:
    data = json.dumps(request).encode()
    http_request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(http_request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)

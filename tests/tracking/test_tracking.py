"""The record in MLflow, against a real SQLite store and real servers, up, down and broken."""

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import packlm
from packlm import config as configuration
from packlm import tracking
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.config import Config
from packlm.tracking import LoggedModel
from tests.mlflow_faults import free_port, wait_for_health

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

MakeConfig = Callable[..., Config]
WriteMetrics = Callable[..., Path]
NO_MODEL = LoggedModel(Path(), Path(), [], [], "tiny", "", {}, {}, {})


@pytest.fixture(autouse=True)
def _no_global_store() -> Iterator[None]:
    """mlflow writes the store that it used last to the environment, where our configuration would read it."""
    before = dict(os.environ)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update(before)


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Records of our log, which does not propagate after a command has set it up."""
    logger = logging.getLogger("packlm")
    logger.propagate = True
    caplog.set_level(logging.INFO, logger="packlm")
    return caplog


def store(config: Config) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(config.tracking.uri)


def ids(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((config.run.dir / "tracking.json").read_text())
    return values


def history(config: Config, run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store(config).get_metric_history(run, key)]


def test_stages_are_children_of_one_parent(make_config: MakeConfig) -> None:
    config, before = make_config(), int(time.time())
    with tracking.stage(config, "preprocess") as recorder:
        recorder.params({"documents": 3, "corpus": {"kind": "text", "unset": None}})
        recorder.dataset("tiny", "ab" * 32, "data/tiny", "training")
    between = int(time.time() * 1000) / 1000
    with tracking.stage(config, "train") as recorder:
        recorder.metrics({"validation/perplexity": 50.0}, step=3)
        recorder.summary({"perplexity": 50.0})
    client, run_ids = store(config), ids(config)
    assert set(run_ids["stages"]) == {"preprocess", "train"}
    parent = client.get_run(run_ids["parent"])
    assert (parent.info.run_name, parent.info.status) == ("tiny: lstm 2x200, sentences", "FINISHED")
    assert parent.data.metrics == {"perplexity": 50.0}
    assert parent.data.params["model.cell"] == "lstm"
    assert before <= parent.info.start_time / 1000 < between <= client.get_run(run_ids["stages"]["train"]).info.start_time / 1000
    for name, run_id in run_ids["stages"].items():
        run = client.get_run(run_id)
        assert (run.info.run_name, run.info.status) == (f"{name} tiny", "FINISHED")
        assert run.data.tags["mlflow.parentRunId"] == run_ids["parent"]
    preprocess = client.get_run(run_ids["stages"]["preprocess"])
    assert preprocess.data.params == {"documents": "3", "corpus.kind": "text"}
    (dataset,) = preprocess.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("tiny", "ab" * 16)
    experiment = client.get_experiment_by_name("packlm")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


@pytest.mark.parametrize(
    ("error", "status"), [(Stopped("signal"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (ValueError("bad"), "FAILED")]
)
def test_status_says_how_a_stage_ended(make_config: MakeConfig, error: BaseException, status: str) -> None:
    config = make_config()
    with pytest.raises(type(error)), tracking.stage(config, "train"):
        raise error
    assert store(config).get_run(ids(config)["stages"]["train"]).info.status == status


def test_restart_doubles_nothing(make_config: MakeConfig, write_metrics: WriteMetrics) -> None:
    config = make_config()
    path = write_metrics(config, range(1, 6))
    with pytest.raises(Stopped), tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
        recorder.params({"processes": 2})
        recorder.metrics({"seconds": 1.0})
        raise Stopped("signal")
    before = ids(config)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True)[:3]))  # cut back to the checkpoint
    write_metrics(config, range(4, 9))
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
        recorder.params({"processes": 4})
        recorder.metrics({"seconds": 1.0})
    run = before["stages"]["train"]
    assert ids(config) == before
    assert history(config, run, "train/loss") == [(step, 10 - step / 10) for step in range(1, 9)]
    assert history(config, run, "by_tokens/train_loss") == [(100 * step, 10 - step / 10) for step in range(1, 9)]
    assert len(history(config, run, "seconds")) == 1
    data = store(config).get_run(run).data
    assert (data.params["processes"], data.tags["changed.processes"]) == ("2", "4")
    assert "by_tokens/train_lr" not in data.metrics
    tracking.sync(config)
    assert len(history(config, run, "train/loss")) == 8


def test_a_note_has_the_results_and_the_recipe(make_config: MakeConfig) -> None:
    config = make_config(model={"hidden": [300, 200]}, corpus={"train": "a/*.txt"})
    with tracking.stage(config, "train"):
        validation = {"best": {"perplexity": 93.204, "step": 40}}
        summary = {"epochs": 2.0, "steps": 1200, "tokens": 36000, "seconds": 90.0, "validation": validation}
        files.write_json(config.run.dir / "train" / "summary.json", summary)
    run = ids(config)["parent"]
    text = store(config).get_run(run).data.tags["mlflow.note.content"]
    assert text.startswith("- trained 2 epochs, 1,200 steps in 1.5 min; validation perplexity 93.20 at step 40\n- lstm 300-200, sentences;")
    again = configuration.resolve(tomllib.loads(text.partition("```toml")[2].partition("```")[0]))
    assert again == config.model_copy(update={"tracking": again.tracking})
    store(config).set_tag(run, "mlflow.note.content", "my own words")
    with tracking.stage(config, "evaluate"):
        pass
    assert store(config).get_run(run).data.tags["mlflow.note.content"] == "my own words"


def test_starting_over_gets_a_new_run(make_config: MakeConfig, write_metrics: WriteMetrics) -> None:
    config = make_config()
    path = write_metrics(config, range(1, 6))
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
    before = ids(config)
    path.unlink()
    write_metrics(config, range(1, 3))
    with tracking.stage(config, "train", fresh=True) as recorder:
        recorder.follow_metrics(path)
    after = ids(config)
    assert after["parent"] == before["parent"] and after["stages"]["train"] != before["stages"]["train"]
    assert len(history(config, after["stages"]["train"], "train/loss")) == 2


def test_ids_of_another_store_are_replaced(make_config: MakeConfig, tmp_path: Path) -> None:
    with tracking.stage(make_config(), "train"):
        pass
    old = ids(make_config())
    config = make_config(f"sqlite:///{tmp_path}/other/new.db")
    with tracking.stage(config, "train"):
        pass
    assert ids(config)["parent"] != old["parent"]
    assert store(config).get_run(ids(config)["stages"]["train"]).info.status == "FINISHED"
    files.write_json(config.run.dir / "tracking.json", {"parent": "no id", "stages": {}})
    with tracking.stage(config, "train"):
        pass
    assert store(config).get_run(ids(config)["parent"]).info.status == "FINISHED"


def test_metrics_that_are_not_finite_are_not_sent(make_config: MakeConfig, write_metrics: WriteMetrics) -> None:
    config = make_config()
    with tracking.stage(config, "train") as recorder:
        path = write_metrics(config, range(1, 2), **{"validation/perplexity": math.inf, "validation/loss": math.nan})
        recorder.follow_metrics(path)
        write_metrics(config, range(2, 3), **{"validation/perplexity": 7.0})
        with open(path, "a") as stream:
            stream.write('{"step": 3, "tok')  # a line still being written
    run = ids(config)["stages"]["train"]
    assert history(config, run, "validation/perplexity") == [(2, 7.0)]
    assert history(config, run, "validation/loss") == []


def test_tables_figures_and_files(make_config: MakeConfig, store_folder: Path, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    config = make_config()
    figure = Figure()
    figure.add_subplot().plot([1, 2], [2, 1])
    (tmp_path / "report.json").write_text("{}")
    for text in ("the cat", "the dog"):
        with tracking.stage(config, "generate") as recorder:
            recorder.table("samples/step-000123.json", {"prompt": ["the"], "text": [text]})
            recorder.figure("figures/loss.png", figure)
            recorder.artifact(tmp_path / "report.json", "reports")
    import mlflow

    mlflow.set_tracking_uri(config.tracking.uri)  # `load_table` asks the global store
    client, run = store(config), ids(config)["stages"]["generate"]
    table = client.load_table(client.get_run(run).info.experiment_id, "samples/step-000123.json", run_ids=[run])
    assert table[["prompt", "text"]].values.tolist() == [["the", "the dog"]]
    assert Path(client.download_artifacts(run, "figures/loss.png")).read_bytes().startswith(b"\x89PNG")
    assert [item.path for item in client.list_artifacts(run, "reports")] == ["reports/report.json"]
    assert (store_folder / "mlartifacts" / "packlm" / run / "artifacts" / "figures" / "loss.png").exists()
    assert not (tmp_path / "mlruns").exists()


def test_reading_from_a_store_that_does_not_exist_does_not_create_it(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tracking={"uri": f"sqlite:///{tmp_path}/none.db"})
    with pytest.raises(RequestError, match=r"run-1 \(not a run folder\): nothing was recorded in sqlite:///.*none.db yet"):
        tracking.read_run("run-1", config.tracking)
    with pytest.raises(RequestError, match=r"models:/tiny@champion: nothing was recorded in sqlite:///.*none.db yet"):
        tracking.folder_of("models:/tiny@champion", config.tracking)
    assert not (tmp_path / "none.db").exists()


def test_model_is_registered_fetched_and_loaded(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    folder, code = tmp_path / "model", tmp_path / "served.py"
    folder.mkdir()
    (folder / "config.json").write_text('{"greeting": "hello"}')
    code.write_text(
        "import json\n"
        "from packlm import tracking\n\n\n"
        "def load(folder, options):\n    return json.loads((folder / 'config.json').read_text())['greeting']\n\n\n"
        "def predict(model, frame, params):\n    return [f'{model} {name}' + '!' * params['marks'] for name in frame['name']]\n\n\n"
        "tracking.declare_model(load, predict)\n"
    )
    with tracking.stage(config, "evaluate") as recorder:
        package = Path(packlm.__file__).parent
        version = recorder.log_model(LoggedModel(folder, code, ["numpy"], [package], "tiny", "name", {"marks": 1}, {}, {"weights": "abc"}))
    assert version == "1"
    store(config).set_registered_model_alias("tiny", "champion", version)
    for address in ("models:/tiny/1", "models:/tiny@champion"):
        assert (tracking.folder_of(address, config.tracking) / "config.json").read_text() == '{"greeting": "hello"}'
    with pytest.raises(RequestError, match=r"models:/tiny/9: no such model in sqlite:///.*packlm evaluate"):
        tracking.folder_of("models:/tiny/9", config.tracking)
    import mlflow
    import pandas

    logged = store(config).get_logged_model(mlflow.models.get_model_info("models:/tiny/1").model_id)
    assert logged.source_run_id == ids(config)["stages"]["evaluate"]
    assert logged.experiment_id == store(config).get_experiment_by_name("packlm").experiment_id
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    assert model.predict(pandas.DataFrame({"name": ["Ada"]}), params={"marks": 2}) == ["hello Ada!!"]


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


def test_pending_records_are_sent_when_the_server_comes_up(
    make_config: MakeConfig, write_metrics: WriteMetrics, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    config = make_config(f"http://127.0.0.1:{port}")
    path = write_metrics(config, range(1, 6))
    with pytest.raises(PacklmError, match="5 lines of metrics and 2 other records were not sent"):
        tracking.sync(config)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        "sqlite:///server.db",
        "--port",
        f"{port}",
        "--workers",
        "1",
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
        with open(tmp_path / "server.log", "w") as output:
            server = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=environment, process_group=0)
        try:
            wait_for_health(port, 60)
            write_metrics(config, range(6, 8))
            recorder.table("samples/first.json", {"text": ["the cat"]})
        except BaseException:
            server.terminate()
            raise
    try:
        run = ids(config)["stages"]["train"]
        assert history(config, run, "train/loss") == [(step, 10 - step / 10) for step in range(1, 8)]
        assert [item.path for item in store(config).list_artifacts(run)] == ["samples"]
        write_metrics(config, range(8, 10))
        tracking.sync(config)
        assert len(history(config, run, "train/loss")) == 9
        assert capfd.readouterr().out == ""  # which is for results
    finally:
        server.terminate()
        server.wait(20)


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

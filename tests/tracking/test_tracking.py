"""The record in MLflow, against a real SQLite store."""

import json
import math
import time
import tomllib
from pathlib import Path

import pytest

import packlm
from packlm import config as configuration
from packlm import tracking
from packlm.base import files
from packlm.base.errors import RequestError, Stopped
from packlm.config import Config
from packlm.tracking import LoggedModel, metric_names
from tests.tracking.reading import MakeConfig, WriteMetrics, history, ids, store

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")


def write_validations(config: Config, losses: dict[int, float]) -> Path:
    """Appends lines of validations to the training's `metrics.jsonl`: step -> loss, 100 tokens a step."""
    path = config.run.dir / "train" / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        for step, loss in losses.items():
            line = {
                "step": step,
                "tokens": 100 * step,
                "time": 1e9 + step,
                "validation/loss": loss,
                "validation/perplexity": math.exp(loss),
            }
            stream.write(json.dumps(line) + "\n")
    return path


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
    assert (parent.info.run_name, parent.info.status) == ("tiny", "FINISHED")
    assert parent.data.metrics == {"perplexity": 50.0}
    assert parent.data.params["model.cell"] == "lstm"
    assert before <= parent.info.start_time / 1000 < between <= client.get_run(run_ids["stages"]["train"]).info.start_time / 1000
    for name, run_id in run_ids["stages"].items():
        run = client.get_run(run_id)
        assert run.info.run_name == {"preprocess": "preprocessing: tiny", "train": "training: tiny"}[name]
        assert (run.info.status, run.data.tags["mlflow.source.name"]) == ("FINISHED", f"packlm {name}")
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


def test_the_parent_has_the_curves_of_validations_once(make_config: MakeConfig, write_metrics: WriteMetrics) -> None:
    config = make_config()
    path = write_metrics(config, range(1, 3))
    with pytest.raises(Stopped), tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(write_validations(config, {2: 5.0}))
        raise Stopped("signal")
    write_validations(config, {2: 5.0, 4: 4.5})  # resumed from a checkpoint of before the validation
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
    with tracking.stage(config, "evaluate") as recorder:
        recorder.summary({"evaluate/validation/perplexity": 90.0})
    tracking.sync(config)
    parent, data = ids(config)["parent"], store(config).get_run(ids(config)["parent"]).data
    for name, expected in (
        ("validation/loss", [(2, 5.0), (4, 4.5)]), ("validation/perplexity", [(2, math.exp(5.0)), (4, math.exp(4.5))]),
        ("by_tokens/validation_loss", [(200, 5.0), (400, 4.5)]),
    ):  # fmt: skip
        assert history(config, parent, name) == expected == history(config, ids(config)["stages"]["train"], name)
    assert not any(name.startswith("train/") for name in data.metrics)


@pytest.mark.long
def test_a_view_of_the_experiment_shows_trainings_by_the_metrics_that_the_parent_has(make_config: MakeConfig) -> None:
    config = make_config()
    with tracking.stage(config, "train") as recorder:
        recorder.summary({metric_names.BEST_PERPLEXITY: 5.0})
    with tracking.stage(make_config(run={"name": "other"}), "train") as recorder:
        recorder.summary({metric_names.BEST_PERPLEXITY: 4.0})
    client = store(config)
    experiment = client.get_experiment_by_name("packlm")
    view = json.loads(experiment.tags["mlflow.sharedViewState.trainings"])
    state = json.loads(view["state"])
    order = [f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"]
    runs = client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=order)
    values = [run.data.metrics[metric_names.BEST_PERPLEXITY] for run in runs if metric_names.BEST_PERPLEXITY in run.data.metrics]
    assert values == sorted(values) and values[:2] == [4.0, 5.0] and all("mlflow.parentRunId" not in run.data.tags for run in runs)
    keys = [column.split("`")[1] for column in state["selectedColumns"] if column.startswith("params.")]
    assert keys and set(keys) <= runs[0].data.params.keys() | {"model.embedding"}


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


def test_starting_over_gets_new_runs_with_the_dataset_of_the_old_ones(make_config: MakeConfig) -> None:
    config = make_config()
    with tracking.stage(config, "preprocess"):
        pass
    path = write_validations(config, {1: 5.0, 2: 4.0, 3: 3.0})
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(path)
    with tracking.stage(config, "evaluate"):
        pass
    before = ids(config)
    path.unlink()
    write_validations(config, {1: 2.0, 2: 1.0})
    with tracking.stage(config, "train", fresh=True) as recorder:
        recorder.follow_metrics(path)
    after = ids(config)
    assert after["parent"] != before["parent"] and after["stages"]["train"] != before["stages"]["train"]
    assert after["stages"]["preprocess"] == before["stages"]["preprocess"] and "evaluate" not in after["stages"]
    client = store(config)
    parents = {name: client.get_run(run).data.tags["mlflow.parentRunId"] for name, run in after["stages"].items()}
    assert parents == dict.fromkeys(["preprocess", "train"], after["parent"])
    assert client.get_run(before["stages"]["train"]).data.tags["mlflow.parentRunId"] == before["parent"]
    for run, expected in ((before["parent"], [5.0, 4.0, 3.0]), (after["parent"], [2.0, 1.0])):
        assert [value for _, value in history(config, run, "validation/loss")] == expected
        assert client.get_run(run).info.status == "FINISHED"
    assert len(history(config, after["stages"]["train"], "validation/loss")) == 2


@pytest.mark.long
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
        outputs = {"name": "string", "greetings": [{"text": "string", "marks": "long"}], "log_probs": ["double"]}
        model = LoggedModel(folder, code, ["numpy"], [package], "tiny", "name", outputs, {"marks": 1}, {}, {"weights": "abc"})
        version = recorder.log_model(model)
        assert recorder.log_model(model) == version  # the same weights
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
    linked = store(config).get_run(ids(config)["parent"]).outputs.model_outputs
    assert [output.model_id for output in linked] == [logged.model_id], "the page of the parent shows the model"
    columns = {column.name: str(column) for column in mlflow.models.get_model_info("models:/tiny/1").signature.outputs}
    assert columns == {
        "name": "'name': string (required)", "log_probs": "'log_probs': Array(double) (optional)",
        "greetings": "'greetings': Array({marks: long (required), text: string (required)}) (optional)",
    }  # fmt: skip
    assert logged.experiment_id == store(config).get_experiment_by_name("packlm").experiment_id
    loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
    assert loaded.predict(pandas.DataFrame({"name": ["Ada"]}), params={"marks": 2}) == ["hello Ada!!"]

"""The evaluated model in MLflow's registry: registered by the stage, opened by its address, answering as MLflow asks."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config import Config
from serve import stages
from serve.engine import Engine
from train.distributed import Ranks

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:.*type hint:UserWarning")


def test_the_evaluate_stage_registers_a_model_that_answers(
    made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_ = made("bpe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(made_.run.dir / "model")
    tracked = made_.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    config = made_.model_copy(update={"run": made_.run.model_copy(update={"dir": tmp_path / "run"}), "tracking": tracked})
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert "perplexity" in (stages.evaluate(config, ranks) or "")
    stages.generate(config, ranks)
    again = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"baselines": False})})
    stages.evaluate(again, ranks)  # measured anew, but the same weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        client = mlflow.MlflowClient(tracked.uri)
        ids = json.loads((tmp_path / "run" / "tracking.json").read_text())
        report = json.loads((tmp_path / "run" / "evaluate" / "validation.json").read_text(encoding="utf-8"))
        for run in (ids["parent"], ids["stages"]["evaluate"]):
            assert client.get_run(run).data.metrics["validation/perplexity"] == pytest.approx(report["perplexity"])
        assert "samples.json" in [item.path for item in client.list_artifacts(ids["stages"]["generate"])]
        assert [version.version for version in client.search_model_versions(f"name = '{tracked.model_name}'")] == [1]
        version = client.get_model_version_by_alias(tracked.model_name, "champion")
        assert version.tags["weights"] == report["weights_digest"] and f"{report['perplexity']:,.2f} per token" in version.description
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

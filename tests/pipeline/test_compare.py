"""Comparing runs: from folders, from MLflow, and warnings about numbers that must not be compared."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import config, tracking
from packlm.base import completion, files, sealed_json
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config
from packlm.tracking import metric_names
from packlm.tracking.run_files import EvaluationReport
from pipeline import compare

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

REPORT = {
    "split": "validation", "tokens": 70, "documents": 2, "words": 50, "bytes": 300, "context": "documents", "streams": None,
    "perplexity": 93.204, "perplexity_per_word": 141.5, "bits_per_byte": 1.25, "unknown_rate": 0.01, "tokenizer_digest": "t1",
    "ids_digest": "i1",
}  # fmt: skip


def write_run(folder: Path, lr: float, report: dict[str, Any], max_steps: int | None = None) -> Path:
    """Writes the files of a training and an evaluation."""
    settings = {"model": {"hidden": 200}, "train": {"lr": lr, "max_steps": max_steps}, "run": {"seed": 1}, "dataset": {"digest": "d"}}
    sealed_json.write(folder / "train" / "settings.json", settings)
    validation = {"best": {"perplexity": 95.0, "step": 10}}
    summary = {"epochs": 2.0, "steps": 20, "tokens": 6000, "seconds": 90.0, "validation": validation}
    files.write_json(folder / "train" / "summary.json", summary)
    sealed_json.write(folder / "model" / "config.json", {"text": {"sentences": "line"}, "model": {"hidden": 200}})
    head = json.dumps({"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    with files.atomic(folder / "model" / "model.safetensors") as stream:
        stream.write(struct.pack("<Q", len(head)) + head + bytes(48))
    files.write_json(folder / "evaluate" / "validation.json", REPORT | report)
    return folder


def test_settings_that_differ_and_numbers_stand_side_by_side(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "one", 0.5, {}), write_run(tmp_path / "two", 0.25, {"perplexity": 90.0}, max_steps=20)
    lines = compare.run([str(first), str(second)], config.Tracking(uri="")).splitlines()
    rows = {" ".join(line.split()) for line in lines}
    assert lines[0].split() == ["one", "two"]
    assert {"train.lr 0.5 0.25", "train.max_steps - 20", "parameters 12 12", "minutes 1.5 1.5", "tokens/s 67 67"} <= rows
    assert {"perplexity 93.20 90.00", "per word 141.50 141.50", "bits per byte 1.2500 1.2500", "best validation 95.00 95.00"} <= rows
    assert not any(line.strip().startswith(("model.", "corpus.", "run.", "dataset.", "!")) for line in lines)


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        ({"ids_digest": "i2"}, "not the same text: none"),
        ({"tokenizer_digest": "t2", "ids_digest": "i2"}, "the tokenizers differ: compare bits per byte"),
        ({"tokenizer_digest": "t2", "ids_digest": "i2", "bits_per_byte": None}, "not all are lossless: compare per word"),
        ({"tokenizer_digest": "t2", "ids_digest": "i2", "bytes": 301}, "not the same text (documents, words or bytes differ)"),
        ({"context": "sentences"}, "the contexts differ"),
    ],
)
def test_numbers_that_must_not_be_compared_have_a_warning(other: dict[str, Any], warning: str) -> None:
    def warnings(changes: dict[str, Any]) -> list[str]:
        return compare.warnings([EvaluationReport.model_validate(report) for report in (REPORT, REPORT | changes)])

    (text,) = warnings(other)
    assert warning in text
    assert warnings({"perplexity": 1.0}) == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("evaluate/validation.json", REPORT | {"tokens": "many"}, "tokens: Input should be a valid integer"),
        ("evaluate/validation.json", [], "Input should be a valid dictionary"),
        ("train/summary.json", {"epochs": 2.0, "steps": 20, "tokens": 6000, "seconds": 90.0, "validation": 3}, "validation: Input"),
        ("train/settings.json", {"train": 3}, "train: Input should be a valid dictionary"),
        ("model/config.json", {"text": 3}, "corpus: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_value_in_a_file_is_an_error_that_names_file_and_key(tmp_path: Path, file: str, content: Any, message: str) -> None:
    folder = write_run(tmp_path / "one", 0.5, {})
    files.write_json(folder / file, content)
    with pytest.raises(PacklmError, match=f"{file}: .*{message}"):
        compare.open_run(str(folder), config.Tracking(uri=""))


def test_a_run_in_mlflow_is_found_by_name_and_id_and_compared_with_a_folder(make_config: Callable[..., Config], tmp_path: Path) -> None:
    settings = {"run": {"name": "recorded"}, "train": {"lr": 0.125}, "model": {"hidden": 200}}
    recorded = make_config(**settings)
    with tracking.stage(recorded, "train") as recorder:
        recorder.metrics({"train/epoch": 3.0}, step=9)
        recorder.summary({metric_names.PARAMETERS: 12, "train/steps": 9, "train/tokens": 900, "train/seconds": 3.0})
    files.write_json(tmp_path / "validation.json", REPORT | {"perplexity": 80.0})
    with tracking.stage(recorded, "evaluate") as recorder:
        recorder.artifact(tmp_path / "validation.json", "evaluate")
    ids = files.read_json(recorded.run.dir / "tracking.json")
    records = [tracking.read_run(word, recorded.tracking) for word in ("recorded", ids["parent"], ids["stages"]["train"])]
    assert all(record == records[0] for record in records)
    assert records[0].metrics["train/epoch"] == 3.0 and records[0].params["train.lr"] == "0.125"
    folder = write_run(tmp_path / "here", 0.5, {})
    text = compare.run(["recorded", str(folder)], recorded.tracking)
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert {"recorded here", "train.lr 0.125 0.5", "epochs 3.00 2.00", "tokens/s 300 67", "perplexity 80.00 93.20"} <= rows
    assert not any("corpus.train" in row or "max_steps" in row for row in rows)  # unknown of the folder; set in neither
    with pytest.raises(RequestError, match=r"it's \(not a run folder\): no run of this id or name in sqlite"):
        compare.run(["it's", str(folder)], recorded.tracking)


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="two or more runs"):
        compare.run([str(tmp_path)], config.Tracking(uri=""))
    with pytest.raises(RequestError, match=r"nothing \(not a run folder\): tracking\.uri is empty"):
        compare.run(["nothing", "nothing"], config.Tracking(uri=""))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train/settings.json", '"lr": 0.5', '"lr": 0.25'),
        ("model/config.json", '"hidden": 200', '"hidden": 100'),
        ("train/summary.json", "95.0", "94.0"),
        ("evaluate/validation.json", "93.204", "83.204"),
        ("train/complete.json", '"outputs"', '"output"'),
        ("evaluate/validation.inputs.json", "{}", '{"a": 1}'),
    ],
)
def test_an_edited_number_or_setting_is_an_error_that_names_the_file(tmp_path: Path, file: str, old: str, new: str) -> None:
    folder = write_run(tmp_path / "one", 0.5, {})
    completion.write(folder / "train" / "complete.json", {}, [folder / "train" / "summary.json"])
    completion.write(folder / "evaluate" / "validation.inputs.json", {}, [folder / "evaluate" / "validation.json"])
    compare.open_run(str(folder), config.Tracking(uri=""))
    content = (folder / file).read_text()
    assert old in content
    (folder / file).write_text(content.replace(old, new, 1))
    with pytest.raises(PacklmError, match=file):
        compare.open_run(str(folder), config.Tracking(uri=""))

"""What a training starts from, and what it reports: weights of another model, dry run, samples, profile."""

import json
import math

import pytest
import torch

from packlm import config, distributed, tracking
from packlm.base.errors import RequestError
from packlm.model import folder as model_folder
from packlm.model.language_model import build
from packlm.tracking.recorder import Recorder
from tests import random_dataset
from tests.ranks import run_on_ranks
from train import dry_run
from train.progress.progress import Progress
from train.progress.remaining import RemainingTime
from train.state import TrainState
from train.trainer import Trainer

ALONE = distributed.Ranks(0, 1, torch.device("cpu"))


def settings(data, run, **train) -> config.Config:
    values = {"segments": "streams", "streams": 4, "window": 5, "max_steps": 12, "device": "cpu", "log_every": 1, "samples": 2}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": 8, "dropout": 0.1},
        "train": values | train,
    })  # fmt: skip


@pytest.fixture
def folder(random_data, tmp_path):
    """A trained model's folder."""
    Trainer(settings(random_data.folder, tmp_path / "first"), random_data.manifest, ALONE).run()
    return tmp_path / "first" / "model"


def test_a_training_starts_from_a_model_folder_with_a_fresh_optimizer(random_data, folder, tmp_path):
    first = model_folder.load(folder)[0]
    trainer = Trainer(settings(random_data.folder, tmp_path / "next", init=str(folder)), random_data.manifest, ALONE)
    assert all(torch.equal(weight, other) for weight, other in zip(trainer.model.parameters(), first.parameters(), strict=True))
    assert not trainer.optimizers[0].state and trainer.state.step == 0
    trainer.run()
    before = json.loads((tmp_path / "next" / "train" / "metrics.jsonl").read_text().splitlines()[0])
    assert before["validation/loss"] == pytest.approx(model_folder.read(folder).numbers.validation["best"]["loss"], rel=1e-6)
    # Run again it resumes from its own checkpoint.
    again = Trainer(settings(random_data.folder, tmp_path / "next", init=str(folder), max_steps=13), random_data.manifest, ALONE)
    again.resume()
    assert again.state.step == 12 and not torch.equal(again.model.embedding.weight, first.embedding.weight)


def start_on_ranks(data, manifest, folder) -> None:
    with distributed.start("cpu") as ranks:
        first = model_folder.load(folder)[0]
        for more in ({}, {"bitwise": 2}):
            trainer = Trainer(settings(data, folder.parent / "ranks", init=str(folder), **more), manifest, ranks)
            assert all(torch.equal(weight, other) for weight, other in zip(trainer.model.parameters(), first.parameters(), strict=True))


@pytest.mark.long
def test_all_ranks_start_from_the_same_weights(random_data, folder):
    run_on_ranks(2, start_on_ranks, *random_data, folder)


def test_a_model_that_does_not_fit_is_refused_by_name(random_data, folder, tmp_path, monkeypatch):
    other = tmp_path / "other-data"
    manifest = random_dataset.write(other, vocab_size=18)
    with pytest.raises(RequestError, match=r"train\.init: .* has another tokenizer .*--tokenizer\.kind file"):
        Trainer(settings(other, tmp_path / "x", init=str(folder)), manifest, ALONE)
    larger = settings(random_data.folder, tmp_path / "x", init=str(folder))
    larger = larger.model_copy(update={"model": config.Model(hidden=9, cell="gru")})
    with pytest.raises(RequestError, match=r"another shape: model\.cell = 'lstm', here 'gru'; model\.hidden = 8, here 9"):
        Trainer(larger, random_data.manifest, ALONE)
    with pytest.raises(RequestError, match="no model here"):
        Trainer(settings(random_data.folder, tmp_path / "x", init=str(tmp_path)), random_data.manifest, ALONE)
    # A registry address is downloaded to a folder like any other.
    monkeypatch.setattr(tracking.models, "_download", lambda address, settings: folder if address == "models:/it@champion" else None)
    assert Trainer(settings(random_data.folder, tmp_path / "x", init="models:/it@champion"), random_data.manifest, ALONE).state.step == 0


def test_a_dry_run_describes_the_training_and_writes_nothing(random_data, tmp_path):
    text = dry_run.describe(settings(random_data.folder, tmp_path / "run"), random_data.manifest, ALONE)
    model = build(config.Model(hidden=8), 17, 1)
    tokens = random_data.manifest.split("train").tokens
    assert f"parameters   {sum(weight.numel() for weight in model.parameters()):,}" in text
    assert f"{math.ceil(math.ceil(tokens / 4) / 5)} per epoch, 12 in total" in text and "20 tokens in" in text
    ids = Trainer(settings(random_data.folder, tmp_path / "run"), random_data.manifest, ALONE).plan.share(0, 0, 0, 1)
    assert repr(" ".join("<eos>" if id == 0 else f"w{id}" for id in ids.targets[: ids.lengths[0]])) in text
    assert not (tmp_path / "run").exists()


def test_operations_are_those_of_the_matrix_products():
    """An LSTM's by the formula of the literature, 24 H (I + H), and the softmax's 6 D V."""
    awd = config.Model(cell="lstm", layers=3, hidden=(1150, 1150, 400), embedding=400)

    def flops(settings: config.Model, vocab_size: int) -> int:
        return dry_run.flops_per_token(build(settings, vocab_size, 1))

    by_hand = 24 * (1150 * (400 + 1150) + 1150 * (1150 + 1150) + 400 * (1150 + 400)) + 6 * 400 * 10_000
    assert flops(awd, 10_000) == by_hand
    assert flops(config.Model(cell="gru", layers=1, hidden=10), 7) == 18 * 10 * 20 + 6 * 10 * 7
    assert flops(config.Model(cell="rnn", layers=1, hidden=10, embedding=4, tied=False), 7) == 6 * 10 * 14 + 6 * 10 * 7


def test_samples_of_all_validations_are_in_one_file_and_use_the_same_random_numbers(random_data, tmp_path):
    Trainer(settings(random_data.folder, tmp_path, validate_every=6, lr=1e-9), random_data.manifest, ALONE).run()
    lines = [json.loads(line) for line in (tmp_path / "train" / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["sample"]) for line in lines] == [(0, 1), (0, 2), (6, 1), (6, 2), (12, 1), (12, 2)]
    texts = [line["text"] for line in lines]
    assert texts[:2] == texts[2:4] == texts[4:] and texts[0] != texts[1]  # the model has hardly moved
    assert all(set(text.split()) <= {f"w{number}" for number in range(1, 17)} for text in texts)
    rows = (tmp_path / "train" / "samples.html").read_text().split("<tr>")[2:]
    measured = {line["step"]: line["perplexity"] for line in lines}
    assert [[text for text in texts if f"<td>{text}</td>" in row] for row in rows] == [texts, texts, texts]
    assert all(f">{step}</td>" in row and f">{value:,.2f}</td>" in row for row, (step, value) in zip(rows, measured.items(), strict=True))


def test_a_resumed_training_replaces_later_samples(tmp_path):
    for step, text in ((0, "a"), (6, "b"), (12, "c"), (6, "d")):
        Progress(settings("", tmp_path), torch.device("cpu"), TrainState(step=step), RemainingTime(99, 9), Recorder(), None).sampled([text])
    lines = [json.loads(line) for line in (tmp_path / "train" / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["text"]) for line in lines] == [(0, "a"), (6, "d")]
    page = (tmp_path / "train" / "samples.html").read_text()
    assert "<td>d</td>" in page and "<td>b</td>" not in page and "<td>c</td>" not in page


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # torch 2.11 warns at every profile
def test_a_profile_is_a_trace_and_a_table(random_data, tmp_path):
    Trainer(settings(random_data.folder, tmp_path, max_steps=14), random_data.manifest, ALONE).run(profile=True)
    trace = json.loads((tmp_path / "train" / "profile" / "trace.json").read_text())
    assert any("addmm" in str(event.get("name")) or "mm" in str(event.get("name")) for event in trace["traceEvents"])
    assert "aten::" in (tmp_path / "train" / "profile" / "operations.txt").read_text()

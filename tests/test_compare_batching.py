"""The compared batching methods have the loss and gradients they claim, and the program reports a row for each."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch

from packlm import config, dataset
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.model.recurrence import Layout
from tests import random_dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import batching_data
import batching_measure
import batching_report
import compare_batching
from batching_methods import BASELINE, METHODS, Group, Method, plain_modules

torch.set_num_threads(1)

CPU = torch.device("cpu")
CELLS = ["rnn", "gru", "lstm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    random_dataset.write(folder, counts=(60, 8))
    return folder


def recipe(folder: Path, **model: object) -> config.Config:
    shape = {"cell": "lstm", "layers": 2, "hidden": (5, 7), "embedding": 7}
    return config.resolve({"model": shape | model, "train": {"global_batch_tokens": 40, "device": "cpu"}, "dataset": {"dir": folder}})


def open_data(settings: config.Config) -> batching_data.Data:
    return batching_data.Data.open(settings, dataset.read_manifest(settings.dataset.dir), 50)


def group_of(*lengths: int) -> Group:
    """Random sentences of these lengths, of ids 1 to 16, each ending in 0."""
    generator = np.random.default_rng(5)
    targets = [np.append(generator.integers(1, 17, length - 1), 0) for length in lengths]
    return Group([np.append(0, sentence[:-1]) for sentence in targets], targets)


@pytest.mark.parametrize(("tied", "residual"), [(True, "none"), (False, "none"), (False, "project")])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_loss_and_gradients_are_those_of_one_by_one(folder: Path, method: Method, cell: str, tied: bool, residual: str) -> None:
    settings = recipe(folder, cell=cell, tied=tied, embedding=7 if tied else 4, residual=residual)
    model = batching_measure.first_model(settings, 17, CPU, torch.float64)
    group = group_of(6, 6, 6) if method.batches == "equal" else group_of(3, 1, 6, 6, 2)
    difference = batching_measure.difference(method, model, group)
    if method.exact:
        assert difference < 1e-12
    else:
        assert difference > 1e-2


def test_padding_without_a_mask_is_exact_only_where_there_is_none(folder: Path) -> None:
    model = batching_measure.first_model(recipe(folder), 17, CPU, torch.float64)
    assert batching_measure.difference(METHODS["padded"], model, group_of(4, 4)) < 1e-12


def test_the_plain_relu_cell_is_torchs() -> None:
    layer, cell = (module(2, 3) for module in plain_modules("rnn_relu"))
    assert layer.mode == "RNN_RELU" and cell.nonlinearity == "relu"
    with pytest.raises(RequestError, match=r"model\.cell: torch has no module for 'mogrifier'"):
        plain_modules("mogrifier")


@pytest.mark.parametrize(
    ("key", "positions"),
    [
        ("one-by-one", 12), ("padded", 20), ("padded-masked", 20), ("cell-by-step", 12), ("packed-as-usual", 20),
        ("ours-packed", 12), ("ours-rectangle", 20),
    ],
)  # fmt: skip
def test_positions_are_counted_with_their_padding(folder: Path, key: str, positions: int) -> None:
    """Lengths 5, 1, 4, 2: twelve tokens in a rectangle of twenty."""
    method = METHODS[key]
    model = method.make(batching_measure.first_model(recipe(folder), 17, CPU, torch.float32))
    counted = batching_measure.PositionCounter(model)
    method.gradients(model, group_of(5, 1, 4, 2))
    assert counted.count == positions


def test_batches_of_equal_lengths_hold_every_sentence_once_an_epoch(folder: Path) -> None:
    sentences = open_data(recipe(folder)).sentences
    plan = batching_data.EqualLengths(sentences, 20, seed=1)
    epochs = []
    for epoch in (0, 1):
        groups = [plan.share(epoch, step, 0, 1) for step in range(plan.steps(epoch))]
        assert all(len({*map(len, group.targets)}) == 1 and group.tokens <= 20 for group in groups)
        epochs.append([tuple(target.tolist()) for group in groups for target in group.targets])
    every = sorted(tuple(sentences.targets(index).tolist()) for index in range(len(sentences)))
    assert sorted(epochs[0]) == sorted(epochs[1]) == every and epochs[0] != epochs[1]


def test_a_step_has_the_tokens_of_the_recipe_and_rows_are_cut_nowhere(folder: Path) -> None:
    data = open_data(recipe(folder))
    assert data.budget == 40
    group = next(data.groups(METHODS["fixed-rows"]))
    assert {*map(len, group.targets)} <= {6, len(data.stream) % 6}
    streams = recipe(folder)
    streams = streams.model_copy(update={"train": streams.train.model_copy(update={"segments": "streams", "streams": 2, "window": 3})})
    assert open_data(streams).budget == max(6, data.sentences.lengths.max())


def test_validation_can_be_its_first_sentences(folder: Path) -> None:
    whole = Sentences.open(folder, dataset.read_manifest(folder), "validation")
    part = batching_data.first_sentences(whole, 30)
    assert part.tokens <= 30 < part.tokens + whole.lengths[len(part)]
    assert [part.targets(index).tolist() for index in range(len(part))] == [whole.targets(index).tolist() for index in range(len(part))]
    assert batching_data.first_sentences(whole, 0).tokens == whole.tokens


def options(folder: Path, out: Path) -> list[str]:
    settings = {
        "dataset.dir": folder, "model.hidden": 8, "train.global_batch_tokens": 40, "train.precision": "float64", "train.device": "cpu",
        "tokens": 300, "validation-tokens": 60, "out": out,
    }  # fmt: skip
    return [str(word) for key, value in settings.items() for word in (f"--{key}", value)]


class InProcess:
    """A `Worker` in this process, which takes less time; notes the turns of all methods, and can fail."""

    turns: ClassVar[list[str]] = []
    fails_after = 10**9

    def __init__(self, method: Method, arguments: list[str]):
        settings = config.load(None, arguments[:10])
        ranks, manifest = Ranks(0, 1, CPU), dataset.read_manifest(settings.dataset.dir)
        data = batching_data.Data.open(settings, manifest, 60)
        self.training = batching_measure.Training(method, settings, manifest.vocab_size, data, ranks)

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def turn(self, tokens: int, seconds: float, weights: Path | None) -> dict[str, Any]:
        if len(self.turns) >= self.fails_after:
            raise KeyboardInterrupt
        self.turns.append(self.training.method.key)
        turn = self.training.turn(tokens, seconds)
        if weights:
            self.training.save(weights)
        return asdict(turn)


def compare(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int = 10**9) -> None:
    """Runs the program, the first method in its own process and the others in this one."""
    worker = compare_batching.Worker
    monkeypatch.setattr(InProcess, "turns", [])
    monkeypatch.setattr(InProcess, "fails_after", fails_after)
    alone = {"one-by-one"} if fails_after > 10**6 else set()
    monkeypatch.setattr(
        compare_batching, "Worker", lambda method, arguments: (worker if method.key in alone else InProcess)(method, arguments)
    )
    monkeypatch.setattr(sys, "argv", ["compare_batching.py", *options(folder, out)])
    compare_batching.main()


@pytest.mark.long
def test_the_program_reports_a_row_for_each_method(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(folder, tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    labels = [method.label for method in METHODS.values()]
    assert [line[: len(label)] for line, label in zip(lines[1:], labels, strict=False)] == labels
    assert {"updates", "tokens seen"} <= set(re.split("  +", lines[0]))
    assert {f"ours-{layout}" for layout in get_args(Layout)} <= METHODS.keys()
    rows = {row["key"]: row for row in files.read_json(tmp_path / "compare-batching.json")["methods"]}
    assert rows.keys() == METHODS.keys()
    assert all(len(row["turns"]) == 8 and row["points"][-1]["tokens"] >= 300 and batching_report.speed(row) > 0 for row in rows.values())
    others = [key for key in METHODS if key != "one-by-one"]
    assert InProcess.turns == (others + others[::-1]) * 4, "the methods take turns"
    # The same steps on the same sentences, in float64: the exact methods are one training.
    same = [row["points"][-1]["perplexity"] for key, row in rows.items() if METHODS[key].batches == "close" and METHODS[key].exact]
    assert same == pytest.approx([same[0]] * len(same), rel=1e-9) and len(same) >= 6
    assert len({batching_report.total(row, "updates") for key, row in rows.items() if METHODS[key].batches == "close"}) == 1
    assert rows["padded"]["points"][-1]["perplexity"] != pytest.approx(same[0], rel=1e-6)
    fill = {key: batching_report.total(row, "tokens") / batching_report.total(row, "positions") for key, row in rows.items()}
    assert fill["padded"] == fill["padded-masked"] < fill["ours-packed"] == fill["fixed-rows"] == 1
    assert (tmp_path / "compare-batching.png").read_bytes()[:4] == b"\x89PNG"
    assert all(f"| {label} |" in (tmp_path / "compare-batching.md").read_text() for label in labels)


def test_a_comparison_that_is_stopped_leaves_its_rounds(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare(folder, tmp_path, monkeypatch, fails_after=2 * len(METHODS) + 3)
    rows = files.read_json(tmp_path / "compare-batching.json")["methods"]
    assert [len(row["turns"]) for row in rows] == [2] * len(METHODS) and all(row["points"] for row in rows)
    assert "2 of 8 rounds" in (tmp_path / "compare-batching.md").read_text()


def test_perplexities_after_other_numbers_of_tokens_or_updates_are_said_not_to_compare() -> None:
    def row(label: str, tokens: int, updates: int) -> dict[str, Any]:
        return {"label": label, "turns": [{"tokens": tokens // 2, "updates": updates // 2}] * 2}

    alike = [row("packed", 1000, 10), row("padded", 1004, 10), row("rows", 996, 10)]
    assert batching_report.caveats(alike) == []
    (updates,) = batching_report.caveats([*alike, row("equal lengths", 1000, 28)])
    assert "equal lengths: 28 updates of 36 tokens each, others of 100" in updates
    (tokens,) = batching_report.caveats([*alike, row("one by one", 400, 4)])
    assert tokens == "one by one: its perplexity is after 400 tokens, that of others after up to 1,004"


def test_a_change_of_load_changes_no_ratio_of_speeds(tmp_path: Path) -> None:
    """Methods of 1, 2 and 4 tokens a second, halved from the fourth round on, and once more in one turn of one of them."""
    methods = []
    for key, tokens in (("one-by-one", 1), ("padded", 2), (BASELINE, 4)):
        slow = [2.0 ** (number >= 3) * (8 if (key, number) == ("padded", 5) else 1) for number in range(8)]
        turns = [{"tokens": tokens, "positions": tokens, "updates": 1, "seconds": seconds, "memory_bytes": 0} for seconds in slow]
        methods.append({"key": key, "label": key, "turns": turns, "points": [], "difference": 0.0})
    assert [batching_report.relative_speed(row, methods) for row in methods] == [0.25, 0.5, 1.0]


def test_curves_are_told_apart_without_colours_and_by_neighbours_with_them() -> None:
    looks = [batching_report._look(number) for number in range(len(METHODS))]
    assert len({look["marker"] for look in looks}) == len({(look["color"], look["linestyle"]) for look in looks}) == len(looks)


def test_a_recipe_without_a_dataset_is_told_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config", str(ROOT / "configs" / "ptb-tied-200.toml"), "--dataset.dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compare_batching.py", *arguments])
    with pytest.raises(RequestError, match=r"no dataset here .*make preprocess CONFIG=.*configs/ptb-tied-200\.toml"):
        compare_batching.main()

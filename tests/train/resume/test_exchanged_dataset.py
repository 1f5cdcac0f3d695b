"""A dataset that is built anew while a stage reads it: the stage ends with what it began with, or with an error; never with a mixture.

The dataset is exchanged for another one, as a rebuild does it, at each moment at which a file of it is opened.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from packlm import config as configuration
from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.evaluation import measure
from packlm.model import folder as model_folder
from tests.random_dataset import write
from train import stage

ALONE = Ranks(0, 1, torch.device("cpu"))
_on_open: Callable[[str], None] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _on_open is not None and event == "open":
        _on_open(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")


@pytest.fixture(scope="module", autouse=True)
def _audited() -> None:
    sys.addaudithook(_hook)  # stays until the process ends, without effect


@contextmanager
def exchanged_at(number: int, folder: Path, other: Path) -> Iterator[list[str]]:
    """Exchanges the dataset in `folder` for `other` just before a file of it is opened for the `number`-th time; yields the files."""
    global _on_open
    names: list[str] = []

    def on_open(path: str) -> None:
        if path.startswith(f"{folder.resolve()}{os.sep}"):
            names.append(path)
            if len(names) == number:
                files.replace_folder(other, folder)

    _on_open = on_open
    try:
        yield names
    finally:
        _on_open = None


def datasets(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset and another one, of other text and another tokenizer, that will take its place."""
    for name, seed, vocab_size in (("data", 1, 17), ("other", 2, 23)):
        if (tmp_path / name).exists():
            files.replace_folder(tmp_path / name, tmp_path / "discarded")
        write(tmp_path / name, seed=seed, vocab_size=vocab_size)
    return tmp_path / "data", tmp_path / "other"


def settings(data: Path, run: Path, **train: object) -> Config:
    return configuration.resolve(
        {
            "run": {"dir": run},
            "dataset": {"dir": data},
            "model": {"layers": 1, "hidden": 8, "embedding": 8, "dropout": 0.0},
            "train": {"epochs": 1, "streams": 2, "window": 5, "global_batch_tokens": 60, "device": "cpu", **train},
            "tracking": {"uri": ""},
        }
    )


def weights_and_tokenizer(config: Config) -> tuple[str, str, bytes]:
    info = model_folder.load(config.run.dir / "model")[1]
    return info.weights, info.tokenizer, (config.run.dir / "model" / "tokenizer.json").read_bytes()


def outcomes(tmp_path: Path, act: Callable[[int], object], converted: bool) -> tuple[list[object], list[str]]:
    """The results of `act` with the dataset exchanged at each of its openings, and the errors; the first is undisturbed.

    `converted`: whether its shards have been converted before.
    """
    results, errors, number, openings = [], [], 0, 1
    with pytest.MonkeyPatch.context() as patch:
        if converted:
            datasets(tmp_path)
            act(-1)
        while number <= openings:
            folder, other = datasets(tmp_path)
            if not converted:
                patch.setenv("HF_DATASETS_CACHE", str(tmp_path / f"cache{number}"))
            with exchanged_at(number, folder, other) as names:
                try:
                    results.append(act(number))
                except PacklmError as error:
                    assert str(folder) in str(error) and "run the same command again" in str(error) and "\n" not in str(error), error
                    errors.append(str(error))
            openings = openings if number else len(names)
            number += 1
    return results, errors


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("segments", ["sentences", "streams"])
def test_a_training_ends_with_the_dataset_that_it_began_with(tmp_path, segments, converted):
    def train(number: int) -> tuple[str, str, bytes]:
        config = settings(tmp_path / "data", tmp_path / f"run{number}", segments=segments, max_steps=3, samples=1)
        stage.run(config, dataset.read_manifest(config.dataset.dir))
        return weights_and_tokenizer(config)

    results, errors = outcomes(tmp_path, train, converted)
    whole, others = results[0], results[1:]
    other = train(len(results) + len(errors))  # by now the other dataset is in its place
    assert others and errors and set(results) == {whole, other} != {whole}, (len(results), errors)
    # The manifest is the first file opened: exchanged before it, the other dataset is trained on, and after it only the first one.
    assert others.count(other) == 1


@pytest.mark.parametrize("converted", [False, True])
def test_an_evaluation_is_of_one_dataset(tmp_path, converted):
    folder, _ = datasets(tmp_path)
    config = settings(folder, tmp_path / "run", max_steps=1)
    stage.run(config, dataset.read_manifest(folder))
    model, info = model_folder.load(tmp_path / "run" / "model")

    def evaluate(number: int) -> str:
        manifest = dataset.read_manifest(folder)
        if manifest.digests["tokenizer"] != info.tokenizer:  # the other dataset, from the beginning
            return "other"
        return files.digest(measure.measure_dataset(model, info, folder, manifest, config.evaluate, ALONE))

    results, errors = outcomes(tmp_path, evaluate, converted)
    assert errors and results.count("other") == 1 and len({*results}) == 2

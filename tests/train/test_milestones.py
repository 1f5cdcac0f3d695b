"""Models at word counts: each has the weights that a checkpoint of its step would export, whatever stops the training between."""

from pathlib import Path

import pytest
import torch

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.dataset import Manifest
from packlm.model import folder as model_folder
from tests.train.resume.test_continuation import run_killed, settings, tree
from train import checkpoint, stage
from train.results import milestones
from train.results.export import weights_to_export

RandomData = tuple[Path, Manifest]


def chosen(manifest: Manifest) -> list[int]:
    """Words in the first epoch, exactly at its end, in the second, and beyond the end of two."""
    words = manifest.split("train").words
    return [words // 3, words, words + words // 2, 3 * words]


def test_a_milestone_has_the_weights_of_its_step(random_data: RandomData, tmp_path: Path) -> None:
    data, manifest = random_data
    every = {"optimizer": "adamw", "lr": 0.1, "epochs": 2, "ema": 0.3, "checkpoint_every": 1, "keep": 1_000}
    config = settings(data, tmp_path, milestones=chosen(manifest), **every)
    stage.run(config, manifest)
    folder, split = tmp_path / "train" / "milestones", manifest.split("train")
    checkpoints = tmp_path / "train" / "checkpoints"
    tokens_at = {step: checkpoint.load(checkpoints, step)[1].tokens for step in checkpoint.steps(checkpoints)}
    assert {path.name for path in folder.iterdir()} == {milestones.folder_name(words) for words in chosen(manifest)[:3]}
    for words in chosen(manifest)[:3]:
        model, info = model_folder.load(folder / milestones.folder_name(words))
        step, tokens = next((step, count) for step, count in tokens_at.items() if count * split.words >= words * split.tokens)
        assert (info.numbers.steps, info.numbers.tokens) == (step, tokens)
        expected = weights_to_export(checkpoint.load(checkpoints, step)[0])
        for name, weights in model_folder.weights_of(model).items():
            assert torch.equal(weights, expected[name])
    assert info.numbers.validation.get("best") is None


def test_an_interrupted_training_has_the_same(random_data: RandomData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, manifest = random_data
    configs = [
        settings(data, tmp_path / name, optimizer="adamw", lr=0.1, epochs=2, milestones=chosen(manifest)) for name in ("whole", "killed")
    ]
    stage.run(configs[0], manifest)
    run_killed(monkeypatch, configs[1], manifest, lambda state: state.epoch == 1)
    stage.run(configs[1], manifest)
    whole, killed = (tree(config.run.dir / "train" / "milestones") for config in configs)
    assert {name: digest for name, digest in whole.items() if "safetensors" in name} == {
        name: digest for name, digest in killed.items() if "safetensors" in name
    }
    assert len(whole) == len(killed) > 0


@pytest.mark.parametrize(("words", "name"), [(10**6, "1M"), (10**9, "1000M"), (1_500_000, "1500k"), (2_000, "2k"), (1_234, "1234")])
def test_names(words: int, name: str) -> None:
    assert milestones.folder_name(words) == name


def test_a_milestone_without_words_is_refused() -> None:
    with pytest.raises(RequestError, match="milestones"):
        configuration.resolve({"train": {"milestones": [0]}})

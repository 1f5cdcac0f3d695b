"""Golden losses: a change that must not alter numbers does not, over twenty steps of a recipe.

`python -m tests.train.test_golden` updates the file, for a change that must.
"""

import json
import tempfile
from pathlib import Path

import pytest

from packlm import config, distributed
from tests import random_dataset
from train.trainer import Trainer

GOLDEN = Path(__file__).parent / "golden_losses.json"
RECIPES = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("quickstart.toml", "ptb-tied-200.toml", "ptb-sentences.toml")
SETTINGS = (
    "--train.max_steps", "20", "--train.log_every", "1", "--train.precision", "float64", "--train.device", "cpu", "--model.hidden", "32",
    "--tracking.uri=",
)  # fmt: skip


def losses(recipe: str, folder: Path) -> list[float]:
    """The loss of each of the first 20 steps of a recipe with 32 units, in float64, on random documents of 300 words."""
    manifest = random_dataset.write(folder / "data", counts=(400, 8), vocab_size=300)
    settings = config.load(RECIPES / recipe, [*SETTINGS, "--dataset.dir", str(folder / "data"), "--run.dir", str(folder / "run")], {})
    with distributed.start("cpu") as ranks:
        Trainer(settings, manifest, ranks).run()
    lines = map(json.loads, (folder / "run" / "train" / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize("recipe", NAMES)
def test_the_losses_are_the_golden_ones(recipe, tmp_path):
    golden = json.loads(GOLDEN.read_text())[recipe]
    assert len(golden) == 20
    assert losses(recipe, tmp_path) == pytest.approx(golden, rel=1e-9)


def main() -> None:
    results = {}
    for recipe in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            results[recipe] = losses(recipe, Path(folder))
    GOLDEN.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

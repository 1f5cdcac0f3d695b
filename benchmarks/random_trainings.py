"""Trainings with random settings, each run in several ways that must give the same result.

    python benchmarks/random_trainings.py [--minutes 10] [--seed 1] [--case N]

A case samples a model and a trainer (cell, widths, regularization, segments, optimizer, schedule, averaging, intervals of validations and
checkpoints) and trains for some steps on random ids, in float64: undisturbed; stopped twice and resumed, which must give the same weights
and metrics to the last bit; in another layout, and in several passes, which must give the same losses to rounding. Cases that differ, are
refused or raise are printed with their settings, and the exit status is 1. `--case` repeats one case.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from packlm import config, dataset
from packlm.base.errors import PacklmError, Stopped
from packlm.distributed import Ranks
from tests import random_dataset
from train.trainer import Trainer

Settings = dict[str, dict[str, Any]]

CLOSE = 1e-8
"""Relative tolerance of float64 losses that are rounded in different order."""
MACHINE_DEPENDENT = ("time", "train/tokens_per_second", "train/data_wait", "train/memory_mb")


def main() -> None:
    """Runs cases until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="run this case only")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    until, number, failed = time.monotonic() + 60 * arguments.minutes, arguments.case or 1, 0
    with tempfile.TemporaryDirectory() as root:
        while True:
            settings, stops = sample(random.Random(f"{arguments.seed} {number}"))
            folder = Path(root) / f"{arguments.seed}-{number}"
            try:
                failure = differences(settings, stops, folder)
            except PacklmError as error:
                failure = f"refused: {error}"
            except Exception:
                failure = traceback.format_exc()
            if failure:
                failed += 1
                print(f"case {number}: stops after {stops}, {json.dumps(settings)}\n{failure}", flush=True)
            if arguments.case or time.monotonic() > until:
                break
            number += 1
    print(f"{1 if arguments.case else number} cases, {failed} failed")
    sys.exit(1 if failed else 0)


def sample(generator: random.Random) -> tuple[Settings, list[int]]:
    """The settings of a case, and the updates after which it is stopped."""

    def some(**choices: list[Any]) -> dict[str, Any]:
        """About half of the settings, each with one of its values."""
        return {key: generator.choice(values) for key, values in choices.items() if generator.random() < 0.5}

    text = {"seed": generator.randrange(1000), "documents": generator.choice([3, 30])}
    layers = generator.choice([1, 2, 3])
    model = {
        "cell": generator.choice(["rnn", "rnn_relu", "gru", "lstm", "mogrifier", "qrnn", "sru", "mlp"]),
        "layers": layers, "hidden": [generator.choice([4, 7]) for _ in range(layers)],
        **some(
            tied=[True, False], dropout=[0.0, 0.5], dropout_input=[0.3], dropout_hidden=[0.3], dropout_output=[0.3],
            dropout_embedding=[0.3], weight_drop=[0.4], locked=[True], residual=["project"], cutoffs=[[3, 9]],
        ),
    }  # fmt: skip
    steps = generator.choice([4, 9, 20])
    train = {
        "device": "cpu", "precision": "float64", "samples": 0, "on_overlong": "cut", "lr": 0.01, "epochs": 9, "max_steps": steps,
        "layout": generator.choice(["steps", "packed", "rectangle"]), "segments": generator.choice(["sentences", "rows", "streams"]),
        "optimizer": generator.choice(["sgd", "nt-asgd", "adamw", "rmsprop", "muon"]),
        "schedule": generator.choice(["constant", "linear", "cosine", "inverse_sqrt", "wsd", "plateau", "zaremba"]),
        **some(
            bitwise=[4], clip=[0.0, 0.1], ar=[2.0], tar=[1.0], weight_decay=[0.1], validate_every=[1, 2, 3], checkpoint_every=[1, 2],
            patience=[2], log_every=[1, 3],
        ),
    }  # fmt: skip
    if train["segments"] == "streams":
        train |= some(reset=["document", "none"], window=[1, 2, 9], window_drawn=[True])
        train["streams"] = generator.choice([4, 5, 20] if text["documents"] > 3 else [2, 4])  # not more than there are tokens
        if "bitwise" in train:
            train["bitwise"] = min(train["bitwise"], train["streams"])
    else:
        train["global_batch_tokens"] = generator.choice([16, 40, 100])
    if train["schedule"] == "inverse_sqrt" or generator.random() < 0.3:
        train["warmup_steps"] = 2
    if train["schedule"] == "zaremba":
        train["flat_epochs"] = 1
    train |= {"sgd": some(momentum=[0.9], ema=[0.5]), "nt-asgd": some(nt_interval=[1, 2])}.get(train["optimizer"], some(ema=[0.5]))
    return {"text": text, "model": model, "train": train}, sorted(generator.sample(range(1, steps + 1), 2))


def differences(settings: Settings, stops: list[int], folder: Path) -> str:
    """What differs between the ways of training; empty if nothing does."""
    text = settings["text"]
    random_dataset.write(folder / "data", text["seed"], (text["documents"], 4))
    weights, metrics = train(settings, folder, "undisturbed")
    resumed_weights, resumed_metrics = train(settings, folder, "stopped", stops)
    if metrics != resumed_metrics or any(not torch.equal(weight, resumed_weights[name]) for name, weight in weights.items()):
        return "stopped and resumed: other weights or metrics"
    layouts = {"steps": "packed", "packed": "rectangle", "rectangle": "steps"}
    passes = min(4, settings["train"].get("streams", 4))
    variants = {"in another layout": {"layout": layouts[settings["train"]["layout"]]}, "in passes": {"accumulate": passes, "bitwise": 0}}
    for name, changed in variants.items():
        _, other_metrics = train({**settings, "train": {**settings["train"], **changed}}, folder, name)
        if len(metrics) != len(other_metrics) or not all(map(alike, metrics, other_metrics)):
            return f"{name}: other losses"
    return ""


def train(settings: Settings, folder: Path, name: str, stops: list[int] | None = None) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Trains, interrupted after `stops` if given; returns the weights and the lines of metrics that do not depend on the machine."""
    run = folder / name
    resolved = config.resolve(
        {
            "run": {"dir": run}, "dataset": {"dir": folder / "data"}, "tracking": {"uri": ""},
            "model": settings["model"], "train": settings["train"],
        }
    )  # fmt: skip
    manifest = dataset.read_manifest(folder / "data")
    for stop in stops or []:
        trainer = Stopping(resolved, manifest, Ranks(0, 1, torch.device("cpu")))
        trainer.after = stop
        try:
            trainer.run()
        except Stopped:
            continue
        break
    trainer = Trainer(resolved, manifest, Ranks(0, 1, torch.device("cpu")))
    trainer.run()
    lines = map(json.loads, (run / "train" / "metrics.jsonl").read_text().splitlines())
    metrics = [{key: value for key, value in line.items() if key not in MACHINE_DEPENDENT} for line in lines]
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}, metrics


class Stopping(Trainer):
    """A training that is stopped at the update number `after`."""

    after = 0

    def update(self, stop: bool) -> Any:
        return super().update(stop or self.state.step + 1 >= self.after)


def alike(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two lines of metrics are equal to rounding, except `train/fill`, which depends on how a batch is divided."""
    keys = one.keys() - {"train/fill"}
    return keys == other.keys() - {"train/fill"} and all(np.isclose(one[key], other[key], rtol=CLOSE, atol=CLOSE) for key in keys)


if __name__ == "__main__":
    main()

"""Trainings with settings drawn at random, each run in several ways that have to end alike.

    python benchmarks/random_trainings.py [--minutes 10] [--seed 1] [--case N]

A case draws a model and a trainer (cell, widths, regularization, segments, optimizer, schedule, averaging, how often to validate and to
keep checkpoints) and trains it for some steps on random ids, in float64: undisturbed; stopped twice and gone on, which has to leave
the same weights and the same record to the last bit; in another layout, and in several passes, which has to leave the same losses to
rounding. A case that does not is printed with its settings, an error that is none of ours too, and the status is 1. `--case` runs one
case again.
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
"""How far apart, relatively, losses in float64 may be that are rounded in different order."""
OF_THE_MACHINE = ("time", "train/tokens_per_second", "train/data_wait", "train/memory_mb")


def main() -> None:
    """Runs cases until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="runs this case alone")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    until, number, failed = time.monotonic() + 60 * given.minutes, given.case or 1, 0
    with tempfile.TemporaryDirectory() as place:
        while True:
            settings, stops = drawn(random.Random(f"{given.seed} {number}"))
            folder = Path(place) / f"{given.seed}-{number}"
            try:
                wrong = differences(settings, stops, folder)
            except PacklmError as error:
                wrong = f"refused: {error}"
            except Exception:
                wrong = traceback.format_exc()
            if wrong:
                failed += 1
                print(f"case {number}: stops after {stops}, {json.dumps(settings)}\n{wrong}", flush=True)
            if given.case or time.monotonic() > until:
                break
            number += 1
    print(f"{1 if given.case else number} cases, {failed} wrong")
    sys.exit(1 if failed else 0)


def drawn(chance: random.Random) -> tuple[Settings, list[int]]:
    """The settings of a case, and the updates after which it is stopped."""

    def some(**choices: list[Any]) -> dict[str, Any]:
        """About half of the settings, each with one of its values."""
        return {key: chance.choice(values) for key, values in choices.items() if chance.random() < 0.5}

    text = {"seed": chance.randrange(1000), "documents": chance.choice([3, 30])}
    layers = chance.choice([1, 2, 3])
    model = {
        "cell": chance.choice(["rnn", "rnn_relu", "gru", "lstm", "mogrifier"]),
        "layers": layers, "hidden": [chance.choice([4, 7]) for _ in range(layers)],
        **some(
            tied=[True, False], dropout=[0.0, 0.5], dropout_input=[0.3], dropout_hidden=[0.3], dropout_output=[0.3],
            dropout_embedding=[0.3], weight_drop=[0.4], locked=[True],
        ),
    }  # fmt: skip
    steps = chance.choice([4, 9, 20])
    train = {
        "device": "cpu", "precision": "float64", "samples": 0, "on_overlong": "cut", "lr": 0.01, "epochs": 9, "max_steps": steps,
        "layout": chance.choice(["steps", "packed", "rectangle"]), "segments": chance.choice(["sentences", "rows", "streams"]),
        "optimizer": chance.choice(["sgd", "nt-asgd", "adamw", "rmsprop", "muon"]),
        "schedule": chance.choice(["constant", "linear", "cosine", "inverse_sqrt", "wsd", "plateau", "zaremba"]),
        **some(
            bitwise=[4], clip=[0.0, 0.1], ar=[2.0], tar=[1.0], weight_decay=[0.1], validate_every=[1, 2, 3], checkpoint_every=[1, 2],
            patience=[2], log_every=[1, 3],
        ),
    }  # fmt: skip
    if train["segments"] == "streams":
        train |= some(reset=["document", "none"], window=[1, 2, 9], window_drawn=[True])
        train["streams"] = chance.choice([4, 5, 20] if text["documents"] > 3 else [2, 4])  # not more than there are tokens
    else:
        train["global_batch_tokens"] = chance.choice([16, 40, 100])
    if train["schedule"] == "inverse_sqrt" or chance.random() < 0.3:
        train["warmup_steps"] = 2
    if train["schedule"] == "zaremba":
        train["flat_epochs"] = 1
    train |= {"sgd": some(momentum=[0.9], ema=[0.5]), "nt-asgd": some(nt_interval=[1, 2])}.get(train["optimizer"], some(ema=[0.5]))
    return {"text": text, "model": model, "train": train}, sorted(chance.sample(range(1, steps + 1), 2))


def differences(settings: Settings, stops: list[int], folder: Path) -> str:
    """What differs between the ways to train; empty if nothing does."""
    text = settings["text"]
    random_dataset.write(folder / "data", text["seed"], (text["documents"], 4))
    weights, record = trained(settings, folder, "undisturbed")
    again, its_record = trained(settings, folder, "stopped", stops)
    if record != its_record or any(not torch.equal(weight, again[name]) for name, weight in weights.items()):
        return "after the stops the weights or the record are others"
    layouts = {"steps": "packed", "packed": "rectangle", "rectangle": "steps"}
    ways = {"in another layout": {"layout": layouts[settings["train"]["layout"]]}, "in passes": {"accumulate": 4, "bitwise": 0}}
    for name, changed in ways.items():
        _, its_record = trained({**settings, "train": {**settings["train"], **changed}}, folder, name)
        if len(record) != len(its_record) or not all(map(alike, record, its_record)):
            return f"{name} the losses are others"
    return ""


def trained(settings: Settings, folder: Path, name: str, stops: list[int] | None = None) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Trains, in several goes if there are `stops`; returns the weights and the lines of the record, but for what is the machine's."""
    run = folder / name
    made = config.resolve(
        {
            "run": {"dir": run}, "dataset": {"dir": folder / "data"}, "tracking": {"uri": ""},
            "model": settings["model"], "train": settings["train"],
        }
    )  # fmt: skip
    manifest = dataset.read_manifest(folder / "data")
    for stop in stops or []:
        trainer = Stopping(made, manifest, Ranks(0, 1, torch.device("cpu")))
        trainer.after = stop
        try:
            trainer.run()
        except Stopped:
            continue
        break
    trainer = Trainer(made, manifest, Ranks(0, 1, torch.device("cpu")))
    trainer.run()
    lines = map(json.loads, (run / "train" / "metrics.jsonl").read_text().splitlines())
    record = [{key: value for key, value in line.items() if key not in OF_THE_MACHINE} for line in lines]
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}, record


class Stopping(Trainer):
    """A training that is told to stop in the update number `after`."""

    after = 0

    def update(self, stop: bool) -> Any:
        return super().update(stop or self.position.step + 1 >= self.after)


def alike(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two lines of a record hold the same numbers to rounding; `train/fill` tells how a batch was cut."""
    keys = one.keys() - {"train/fill"}
    return keys == other.keys() - {"train/fill"} and all(np.isclose(one[key], other[key], rtol=CLOSE, atol=CLOSE) for key in keys)


if __name__ == "__main__":
    main()

"""Batching methods for sequences of unequal length, side by side on any recipe: tokens/s, fill, memory and perplexity reached.

    make compare-batching CONFIG=configs/ptb-tied-200.toml
    python benchmarks/compare_batching.py --config configs/ptb-tied-200.toml [--tokens 100000] [--seconds 60] [--validation-tokens 20000]
                                          [--out DIR] [--section.key value ...]

    1  one by one                 batch size 1, gradients accumulated over the same sentences as below
    2  equal lengths only         every batch holds sentences of exactly one length
    3  padded, no mask            sentences of similar length, padded to the longest; padding counts in the loss
    4  padded, masked             the same, padding masked in the loss; the softmax is computed for it all the same
    5  a cell, step by step       nn.LSTMCell at each time step, on the sentences that have not ended
    5b packed, as in tutorials    pad, embed, pack_padded_sequence, nn.LSTM, pad_packed_sequence, masked loss
    ours, LAYOUT                  our model in each of its layouts
    fixed rows                    our model on rows of `dataset.length` tokens, not cut at document boundaries: the baseline

All start from the recipe's initial weights and use its optimizer, learning rate (constant), gradient clipping and tokens per step, without
dropout, on sentences, whatever `train.segments` the recipe has. Methods 1, 3, 4, 5, 5b and ours get the same batches in the same order, so
the exact ones take the same steps up to rounding, which a high learning rate amplifies (1.5% of the perplexity after 86 steps of SGD on
Penn Treebank). First, loss and gradients of each method are compared in float64 with those of our model running the sentences one by one.
Then the methods train until they have seen `--tokens` targets or trained for `--seconds`, each in its own process, and take turns: eight
rounds, in each of which every method trains an eighth, in reverse order every other round. A speed is a median over the rounds, and the
comparison with fixed rows a median of the ratios within a round: programs that run beside this one for a while change neither much.
Perplexity is measured after rounds 1, 2, 4 and 8 on the first `--validation-tokens` of the validation sentences (0: all), each from a zero
state. Memory is measured on Linux. Prints the table, and writes it to `runs/NAME/compare-batching/compare-batching.{json,md,png}` after
each round, so that a comparison that is stopped leaves the rounds before.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import logging
import math
import platform
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from batching_data import Data
from batching_measure import Training, check, first_model, perplexity
from batching_methods import METHODS, Method, plain_modules
from batching_report import caveats, figure, markdown, table

from packlm import config as configuration
from packlm import dataset, distributed
from packlm.base import errors, files
from packlm.base import log as logs
from packlm.model.precision import Precision

log = logging.getLogger("packlm")

ROUNDS = 8
MEASURED_ROUNDS = (1, 2, 4, 8)
"""Rounds after which validation perplexity is measured."""


def main() -> None:
    """Compares all methods or, with the internal option `--method`, measures one and prints the result as JSON."""
    logs.setup()
    file, settings, others = configuration.split_arguments(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--validation-tokens", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args(others)
    file = file or configuration.DEFAULT_CONFIG
    config = configuration.load(file, settings)
    if given.tokens < 1 or given.seconds <= 0 or given.validation_tokens < 0:
        raise errors.RequestError("--tokens and --seconds must be positive, --validation-tokens at least 0")
    plain_modules(config.model.cell)
    if not (config.dataset.dir / "manifest.json").exists():
        raise errors.RequestError(f"{config.dataset.dir}: no dataset here (no manifest.json); run `make preprocess CONFIG={file}`")
    manifest = dataset.read_manifest(config.dataset.dir)
    manifest.split("validation")
    with distributed.start(config.train.device) as ranks:
        data = Data.open(config, manifest, given.validation_tokens)
        if given.method:
            take_turns(Training(METHODS[given.method], config, manifest.vocab_size, data, ranks))
            return
        log.info("%s: %s sentences, %s tokens per step", config.dataset.dir, f"{len(data.sentences):,}", f"{data.budget:,}")
        differences = check([*METHODS.values()], config, manifest.vocab_size, data, ranks.device)
        folder = given.out or config.run.dir / "compare-batching"
        results = {"about": about(config, manifest, data, ranks.device, given), "command": [*sys.argv], "methods": []}
        model = first_model(config, manifest.vocab_size, ranks.device, Precision(config.train.precision, ranks.device).weights_dtype)
        rows = {key: {"key": key, "label": method.label, "difference": differences[key]} for key, method in METHODS.items()}
        with ExitStack() as stack:
            weights = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights"
            workers = {method.key: stack.enter_context(Worker(method, sys.argv[1:])) for method in METHODS.values()}
            for number in range(1, ROUNDS + 1):
                for key in list(METHODS)[:: 1 if number % 2 else -1]:
                    measured = number in MEASURED_ROUNDS
                    share = number / ROUNDS
                    turn = workers[key].turn(math.ceil(given.tokens * share), given.seconds * share, weights if measured else None)
                    rows[key].setdefault("turns", []).append(turn)
                    if measured:
                        tokens, seconds = (sum(turn[name] for turn in rows[key]["turns"]) for name in ("tokens", "seconds"))
                        point = {"tokens": tokens, "seconds": seconds, "perplexity": perplexity(model, weights, data, ranks)}
                        rows[key].setdefault("points", []).append(point)
                results["methods"] = [*rows.values()]
                write(folder, results)
                log.info("round %d of %d: %s", number, ROUNDS, folder / "compare-batching.md")
    print("\n".join([table(results["methods"]), *caveats(results["methods"])]))


class Worker:
    """A method's training in its own process, so that its peak memory is its own; it trains only during its turns."""

    def __init__(self, method: Method, arguments: list[str]):
        self.label = method.label
        command = [sys.executable, __file__, *arguments, "--method", method.key]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def turn(self, tokens: int, seconds: float, weights: Path | None) -> dict[str, Any]:
        """Trains on until `tokens` and `seconds` of all turns (`Training.turn`), and saves the weights."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"tokens": tokens, "seconds": seconds, "weights": weights and str(weights)}) + "\n")
            self._process.stdin.flush()
            turn: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            status = self._process.wait()
            raise errors.PacklmError(f"{self.label}: its process ended with status {status}; the report has the rounds before") from None
        return turn


def take_turns(training: Training) -> None:
    """The process of a `Worker`: answers each request on standard input with the numbers of a turn."""
    for line in sys.stdin:
        request = json.loads(line)
        turn = training.turn(request["tokens"], request["seconds"])
        if request["weights"]:
            training.save(Path(request["weights"]))
        print(json.dumps(asdict(turn)), flush=True)


def about(
    config: configuration.Config, manifest: dataset.Manifest, data: Data, device: torch.device, given: argparse.Namespace
) -> dict[str, Any]:
    """Recipe, model, training settings and hardware of the comparison."""
    settings, model = config.train, config.model
    optimizer = f"{settings.optimizer} at {settings.lr:g}, clip {settings.clip:g}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads, {platform.machine()}"
    shape = f"{model.cell} {'-'.join(map(str, model.widths))}, {'tied' if model.tied else 'untied'}"
    return {
        "recipe": config.run.name,
        "model": f"{shape}, vocabulary {manifest.vocab_size:,}",
        "training": f"{optimizer}, {data.budget:,} tokens per step, {settings.precision}",
        "machine": f"{where}, torch {torch.__version__}",
        "tokens": given.tokens,
        "seconds": given.seconds,
        "rounds": ROUNDS,
        "validation_tokens": data.validation.tokens,
        "row_length": manifest.length,
    }


def write(folder: Path, results: dict[str, Any]) -> None:
    """Writes the results as JSON, a Markdown report and a figure."""
    path = folder / "compare-batching"
    files.write_json(path.with_suffix(".json"), results)
    files.write_text(path.with_suffix(".md"), markdown(results))
    with files.atomic(path.with_suffix(".png")) as stream:
        figure(results).savefig(stream, dpi=150)


if __name__ == "__main__":
    errors.run(main)

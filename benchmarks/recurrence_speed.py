"""Training speed beside plain PyTorch, both in one run.

    python benchmarks/recurrence_speed.py layers    --config C    a layer forward and backward over sentences of unequal length
    python benchmarks/recurrence_speed.py sentences --config C    whole steps on sentences, beside fixed rows
    python benchmarks/recurrence_speed.py layouts   --config C    whole steps of the recipe in every layout, beside what `auto` chooses
    python benchmarks/recurrence_speed.py step      --config C    whole steps beside PyTorch's word-language-model loop
    python benchmarks/recurrence_speed.py ranks     --config C    one process of one thread, beside two of one thread each (streams)
    python benchmarks/recurrence_speed.py bitwise   --config C    two processes: as usual, and with `train.bitwise` of 2 and 4
                                          [--rounds 7] [--seconds 2] [--section.key value ...]

Needs the recipe's dataset (`make preprocess CONFIG=C`). Sides run in processes of their own and take turns; every figure is the median over
the rounds, every ratio the median of the rounds' ratios. `of limit`: floating-point operations per second relative to a product of two
matrices of 1,024 x 1,024 of the same type, by the fastest library of the machine (`packlm.model.products`), in the same run.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import argparse
import json
import os
import platform
import subprocess
import tempfile
from statistics import median
from typing import Any

import numpy as np
import torch
from side_by_side import Side, Step, medians, ratio, tokens_per_second
from torch import nn
from torch.nn import functional as F

from packlm import config as configuration
from packlm import dataset
from packlm.base import errors
from packlm.config import Config
from packlm.dataset.views import Sentences
from packlm.distributed import Ranks
from packlm.model.cell import LayerWeights
from packlm.model.cells import CELLS
from packlm.model.products import has_bfloat16, matmul
from packlm.model.recurrence import Packing
from train.trainer import Trainer

WINDOW = 35
TYPES = {"float32": torch.float32} | ({"bf16": torch.bfloat16} if has_bfloat16(torch.device("cpu")) else {})
"""Those with instructions of the processor."""


def main() -> None:
    """Runs one of the comparisons and prints its table."""
    file, settings, others = configuration.split_arguments(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(others)
    arguments = (file or configuration.DEFAULT_CONFIG, settings)
    print(f"{' '.join(sys.argv[1:])}: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    PARTS[options.part](arguments, options.rounds, options.seconds)


Arguments = tuple[Path, list[str]]
"""Configuration file and settings, as from a command line."""


def layers(arguments: Arguments, rounds: int, seconds: float) -> None:
    """nn.LSTM and the like on a PackedSequence, on the batch padded to a rectangle, and ours, on 64 random sentences."""
    for cell in ("lstm", "gru", "rnn"):
        for units in (200, 650):
            names = ("packed", "padded", "ours", "limit")
            sides = [Side(name, layer_side, (arguments, name, cell, units)) for name in names]
            speeds = tokens_per_second(sides, rounds, seconds)
            speed = medians(speeds)
            # Forward and backward of a layer as wide as its input: three products of 2 x gates x units x (units + units).
            operations = 12 * {"lstm": 4, "gru": 3, "rnn": 1}[cell] * units * units
            print(
                f"{cell:5}{units:4}  packed {speed['packed']:9,.0f}  padded {speed['padded']:9,.0f}  ours {speed['ours']:9,.0f} tokens/s  "
                f"ours/packed {ratio(speeds, 'ours', 'packed'):.2f}  ours/padded {ratio(speeds, 'ours', 'padded'):.2f}  "
                f"of limit {operations * speed['ours'] / speed['limit']:.0%} (packed {operations * speed['packed'] / speed['limit']:.0%})",
                flush=True,
            )


def sentences(arguments: Arguments, rounds: int, seconds: float) -> None:
    """Our trainer on sentences, in every layout, and on fixed rows that are cut nowhere, with as many tokens a step."""
    for units in (200, 650):
        shape = ["--model.hidden", str(units), "--train.window", str(WINDOW)]
        sides = [Side("rows", trainer_side, (arguments, [*shape, "--train.segments", "rows"]))]
        for layout in ("auto", "steps", "packed", "rectangle"):
            sides.append(Side(layout, trainer_side, (arguments, [*shape, "--train.segments", "sentences", "--train.layout", layout])))
        speeds = tokens_per_second(sides, rounds, seconds)
        speed = medians(speeds)
        shares = "  ".join(f"{side.name} {speed[side.name]:,.0f} ({ratio(speeds, side.name, 'rows'):.2f})" for side in sides[1:])
        print(f"{units:4} units  rows {speed['rows']:,.0f} tokens/s  sentences: {shares}", flush=True)


def layouts(arguments: Arguments, rounds: int, seconds: float) -> None:
    """Our trainer on the recipe's batches in every layout, in each of `TYPES`, relative to `auto`."""
    for type_ in TYPES:
        sides = [
            Side(layout, trainer_side, (arguments, ["--train.precision", type_, "--train.layout", layout]))
            for layout in ("auto", "steps", "packed", "rectangle")
        ]
        speeds = tokens_per_second(sides, rounds, seconds)
        shares = "  ".join(f"{side.name} {ratio(speeds, side.name, 'auto'):.2f}" for side in sides[1:])
        print(f"{type_:8} auto {medians(speeds)['auto']:,.0f} tokens/s; of it: {shares}", flush=True)


def step(arguments: Arguments, rounds: int, seconds: float) -> None:
    """Our trainer on streams of the recipe's text, in each of `TYPES`, and the loop of PyTorch's word-language-model example, in float32,
    of as many words."""
    vocab_size = _opened(arguments)[1].vocab_size
    for units in (200, 650):
        for streams in (20, 64):
            settings = {
                "model.cell": "lstm", "model.layers": 2, "model.hidden": units, "model.tied": "true", "model.dropout": 0.2,
                "train.segments": "streams", "train.reset": "none", "train.streams": streams, "train.window": WINDOW,
                "train.optimizer": "sgd", "train.lr": 1, "train.clip": 0.25,
            }  # fmt: skip
            options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
            sides = [
                Side("plain", plain_side, (units, streams, vocab_size)),
                *(Side(type_, trainer_side, (arguments, [*options, "--train.precision", type_])) for type_ in TYPES),
                *(Side(f"limit {type_}", limit_side, (dtype,)) for type_, dtype in TYPES.items()),
            ]
            speeds = tokens_per_second(sides, rounds, seconds)
            speed = medians(speeds)
            operations = 48 * units * 2 * units + 6 * units * vocab_size
            print(f"2x{units} {streams} streams  plain {speed['plain']:,.0f} tokens/s", end="")
            for type_ in TYPES:
                limit = speed[f"limit {type_}"] / operations
                print(
                    f"  {type_} {speed[type_]:,.0f} ({ratio(speeds, type_, 'plain'):.2f} times plain, {speed[type_] / limit:.0%} of the "
                    f"limit of {limit:,.0f} or {limit / speed['plain']:.2f} times plain)",
                    end="",
                )
            print(flush=True)


def ranks(arguments: Arguments, rounds: int, seconds: float) -> None:
    """The command, with one process and with two, one thread each: on the recipe's streams, on twice as many, and, as what the machine
    allows, two trainings that have nothing to do with each other, with half of the streams each."""
    streams = configuration.load(*arguments).train.streams
    sides = {"one": (1, 1, streams), "two": (1, 2, streams), "two, streams doubled": (1, 2, 2 * streams), "two apart": (2, 1, streams // 2)}
    speeds_by_side: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (trainings, world, num_streams) in sides.items():
            speeds_by_side[name].append(
                command_speed((arguments[0], [*arguments[1], "--train.streams", str(num_streams)]), world, trainings)
            )
    for name, speeds in speeds_by_side.items():
        share = median(two / one for one, two in zip(speeds_by_side["one"], speeds, strict=True)) / 2
        print(f"{name}: {median(speeds):,.0f} tokens/s" + (f", {share:.2f} of twice one" if name != "one" else ""), flush=True)


def bitwise(arguments: Arguments, rounds: int, seconds: float) -> None:
    """The command with two processes of one thread: gradients averaged by DDP, and kept apart by part and added up in order."""
    speeds_by_side: dict[int, list[float]] = {0: [], 2: [], 4: []}
    for _ in range(rounds):
        for parts, speeds in speeds_by_side.items():
            speeds.append(command_speed((arguments[0], [*arguments[1], "--train.bitwise", str(parts)]), 2))
    for parts in (2, 4):
        share = median(speed / usual for speed, usual in zip(speeds_by_side[parts], speeds_by_side[0], strict=True))
        print(
            f"usual {median(speeds_by_side[0]):,.0f}  {parts} parts {median(speeds_by_side[parts]):,.0f} tokens/s: {share:.2f}", flush=True
        )


def layer_side(arguments: Arguments, name: str, cell: str, units: int) -> Step:
    """A layer over 64 sentences of the recipe's training split, or the product that bounds it."""
    if name == "limit":
        return limit_side()
    config, manifest = _opened(arguments)
    lengths = Sentences.open(config.dataset.dir, manifest, "train").lengths
    lengths = np.sort(np.random.default_rng(1).choice(lengths, 64, replace=False))[::-1].astype(np.int64)
    packing = Packing.of(lengths.copy(), padded=name == "padded", device=torch.device("cpu"))
    torch.manual_seed(1)
    module = CELLS[cell].layer(units, units)
    weights = LayerWeights(dict(module.named_parameters()))
    rows = torch.randn(len(packing.tokens), units, requires_grad=True)
    gradient = torch.randn(len(rows), units)
    vectors, size = CELLS[cell].state_shape(units, units)
    start = torch.zeros(vectors, len(lengths), size)

    def forward() -> torch.Tensor:
        if name == "padded":
            return module(rows.view(-1, len(lengths), units))[0].flatten(0, 1)
        if name == "packed":
            return module(nn.utils.rnn.PackedSequence(rows, packing.batch_sizes))[0].data
        return CELLS[cell].run(weights, rows, start, packing.batch_sizes)[0]

    def run() -> int:
        module.zero_grad()
        forward().backward(gradient)
        return int(lengths.sum())

    return run


def trainer_side(arguments: Arguments, options: list[str]) -> Step:
    """Our trainer, as the command runs it, with what the recipe says but for `options`."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*options, "--run.dir", folder, "--tracking.uri=", "--train.epochs", "99"]
        config, manifest = _opened((arguments[0], [*arguments[1], *options]))
        trainer = Trainer(config, manifest, Ranks(0, 1, torch.device("cpu")))
    if config.train.segments == "rows":
        trainer.plan.stream.opens = trainer.plan.stream.opens[:0]  # type: ignore[attr-defined]  # fixed lengths, cut nowhere
    return lambda: trainer.update(stop=False).tokens


def plain_side(units: int, streams: int, vocab_size: int) -> Step:
    """The loop of PyTorch's word-language-model example: nn.LSTM of two layers with dropout 0.2, tied nn.Linear, log_softmax and
    nll_loss, clipping, `p.data.add_(p.grad, alpha=-lr)`; on random ids."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(vocab_size, units)
            self.rnn, self.decoder = nn.LSTM(units, units, 2, dropout=0.2), nn.Linear(units, vocab_size)
            self.decoder.weight = self.encoder.weight

        def forward(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            output, state = self.rnn(self.drop(self.encoder(ids)), state)
            return F.log_softmax(self.decoder(self.drop(output)).view(-1, vocab_size), dim=1), state

    torch.manual_seed(1)
    model = Model()
    state = (torch.zeros(2, streams, units), torch.zeros(2, streams, units))
    ids, targets = torch.randint(vocab_size, (WINDOW, streams)), torch.randint(vocab_size, (WINDOW * streams,))

    def run() -> int:
        nonlocal state
        model.zero_grad()
        output, state = model(ids, tuple(part.detach() for part in state))
        loss = F.nll_loss(output, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data.add_(parameter.grad, alpha=-1)
        loss.item()
        return len(targets)

    return run


def limit_side(dtype: torch.dtype = torch.float32) -> Step:
    """A product of two matrices: its `tokens` are floating-point operations."""
    one, other = (torch.randn(1024, 1024).to(dtype) for _ in range(2))

    def run() -> int:
        matmul(one, other)
        return 2 * 1024**3

    return run


def command_speed(arguments: Arguments, world: int, trainings: int = 1) -> float:
    """Median tokens/s of a hundred steps of `torchrun --nproc-per-node WORLD train` with one thread a process; of several such trainings
    at once, all together."""
    file, settings = arguments
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(number) for number in range(trainings)]
        options = [*settings, "--tracking.uri=", "--train.max_steps", "100", "--train.log_every", "10", "--evaluate.batch_tokens", "20000"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), str(ROOT / "train")]
        running = [
            subprocess.Popen(
                [*command, "--config", str(file), *options, "--run.dir", str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
            )
            for folder in folders
        ]  # fmt: skip
        if any([process.wait() for process in running]):
            raise errors.PacklmError(f"a training failed: {' '.join(command)} --config {file} {' '.join(options)}")
        return sum(map(_median_speed, folders))


def _median_speed(folder: Path) -> float:
    lines = map(json.loads, (folder / "train" / "metrics.jsonl").read_text().splitlines())
    return median([line["train/tokens_per_second"] for line in lines if "train/loss" in line][1:])


def _opened(arguments: Arguments) -> tuple[Config, dataset.Manifest]:
    config = configuration.load(*arguments)
    return config, dataset.read_manifest(config.dataset.dir)


PARTS = {"layers": layers, "sentences": sentences, "layouts": layouts, "step": step, "ranks": ranks, "bitwise": bitwise}

if __name__ == "__main__":
    errors.run(main)

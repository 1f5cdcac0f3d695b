"""Ways to batch sequences of unequal length, side by side on any recipe: tokens/s, fill, memory and perplexity reached.

    make compare-batching CONFIG=configs/ptb-tied-200.toml
    python benchmarks/compare_batching.py --config configs/ptb-tied-200.toml [--tokens 100000] [--seconds 60] [--validation-tokens 20000]
                                          [--out DIR] [--section.key value ...]

    1  one by one                 batches of one, gradients added up over the same sentences as below
    2  equal lengths only         every batch holds sentences of exactly one length
    3  padded, no mask            close lengths together, padded to the longest; the padding is learned as if it were text
    4  padded, masked             the same, the padding left out of the loss; the softmax is computed for all of it
    5  a cell, step by step       nn.LSTMCell on the sentences that still run, for each time step
    5b packed, as in tutorials    pad, embed, pack_padded_sequence, nn.LSTM, pad_packed_sequence, masked loss
    ours, LAYOUT                  our model in each of its layouts
    fixed rows                    our model on rows of `dataset.length` tokens that are cut nowhere: the yardstick

All start from the recipe's first weights and take its optimizer, learning rate (constant), clipping and tokens a step; nothing is
dropped. Whatever the recipe trains on itself, it is sentences here. 1, 3, 4, 5, 5b and ours get the same batches in the same order, so
the exact ones take the same steps but for rounding, of which a high learning rate makes much (1.5% of the perplexity after 86 steps of
plain gradient descent on Penn Treebank). First, loss and gradients of each way on a few sentences are compared in float64 with those of our
model running them one by one. Then each trains in a process of its own, one after the other, until it has seen `--tokens` targets, or
for `--seconds`. Perplexity is that of the first `--validation-tokens` of the validation sentences (0: all), each from a zero
state. Memory is measured on Linux. Prints the table, and leaves it as compare-batching.{json,md,png} in
`runs/NAME/compare-batching`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import logging
import platform
import subprocess
from dataclasses import asdict
from typing import Any

import torch
from ways import WAYS, Way, plain_modules
from ways_data import Data
from ways_measured import check, measure
from ways_report import figure, markdown, table

from packlm import config as configuration
from packlm import dataset, distributed
from packlm.base import errors, files
from packlm.base import log as logs

log = logging.getLogger("packlm")


def main() -> None:
    """Reads the command line, and compares all ways or, in a process that this one started, measures one."""
    logs.setup()
    file, settings, others = configuration.split_arguments(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--validation-tokens", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args(others)
    file = file or configuration.DEFAULT_CONFIG
    config = configuration.load(file, settings)
    if given.tokens < 1 or given.seconds <= 0 or given.validation_tokens < 0:
        raise errors.RequestError("--tokens and --seconds must be above 0, --validation-tokens not below it")
    plain_modules(config.model.cell)
    if not (config.dataset.dir / "manifest.json").exists():
        raise errors.RequestError(f"{config.dataset.dir}: no dataset here (no manifest.json); `make preprocess CONFIG={file}` makes it")
    manifest = dataset.read_manifest(config.dataset.dir)
    manifest.split("validation")
    with distributed.start(config.train.device) as ranks:
        data = Data.open(config, manifest, given.validation_tokens)
        if given.way:
            found = measure(WAYS[given.way], config, manifest.vocab_size, data, ranks, given.tokens, given.seconds)
            print(json.dumps(asdict(found)))
            return
        log.info("%s: %s sentences, %s tokens a step", config.dataset.dir, f"{len(data.sentences):,}", f"{data.budget:,}")
        differences = check([*WAYS.values()], config, manifest.vocab_size, data, ranks.device)
    ways = []
    for number, way in enumerate(WAYS.values(), 1):
        row = alone(way, sys.argv[1:])
        ways.append(row | {"difference": differences[way.key]})
        speed, last = f"{row['tokens_per_second']:,.0f}", row["points"][-1]
        log.info(
            "%d of %d: %s: %s tokens/s, perplexity %.1f, %.0f s", number, len(WAYS), way.label, speed, last["perplexity"], last["seconds"]
        )
    results = {"about": about(config, manifest, data, ranks.device, given), "command": [*sys.argv], "ways": ways}
    print(table(ways))
    write(given.out or config.run.dir / "compare-batching", results)


def alone(way: Way, arguments: list[str]) -> dict[str, Any]:
    """What a way measures in a process of its own, whose memory is that of nothing else."""
    done = subprocess.run([sys.executable, __file__, *arguments, "--way", way.key], stdout=subprocess.PIPE)
    if done.returncode:
        raise errors.PacklmError(f"{way.label}: its process ended with status {done.returncode}; nothing was written")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def about(
    config: configuration.Config, manifest: dataset.Manifest, data: Data, device: torch.device, given: argparse.Namespace
) -> dict[str, Any]:
    """What was compared, and on what."""
    settings, model = config.train, config.model
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads, {platform.machine()}"
    shape = f"{model.cell} {'-'.join(map(str, model.widths))}, {'tied' if model.tied else 'untied'}"
    return {
        "recipe": config.run.name,
        "model": f"{shape}, vocabulary {manifest.vocab_size:,}",
        "training": f"{settings.optimizer} at {settings.lr:g}, clip {settings.clip:g}, {data.budget:,} tokens a step, {settings.precision}",
        "machine": f"{where}, torch {torch.__version__}",
        "tokens": given.tokens,
        "seconds": given.seconds,
        "validation_tokens": data.validation.tokens,
        "row_length": manifest.length,
    }


def write(folder: Path, results: dict[str, Any]) -> None:
    """Leaves the results as JSON, as a report, and as a picture."""
    path = folder / "compare-batching"
    files.write_json(path.with_suffix(".json"), results)
    files.write_text(path.with_suffix(".md"), markdown(results))
    with files.atomic(path.with_suffix(".png")) as stream:
        figure(results).savefig(stream, dpi=150)
    log.info("%s", path.with_suffix(".{json,md,png}"))


if __name__ == "__main__":
    errors.run(main)

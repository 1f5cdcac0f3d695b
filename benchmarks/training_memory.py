"""Memory of the training data: resident bytes per sentence for each kind of segments, on a dataset of random ids.

    python benchmarks/training_memory.py --millions 200

Writes both views of random ids (sentences as long as Penn Treebank's, 22 tokens on average, 20 per document), has `datasets` map them into
memory once, and then, in a process for each kind of segments, opens the plan and reads the first batches of two epochs. What counts is the
anonymous memory of the process (RssAnon, before and after); pages of mapped files, which the system reclaims when it needs them, are
reported besides. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from packlm import config, dataset
from packlm.base import files

SHARDS, VOCABULARY, LENGTH = 8, 10_000, 64
PLANS = {"sentences": {"segments": "sentences"}, "rows": {"segments": "rows"}, "streams": {"segments": "streams", "window_drawn": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=200, help="tokens")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure[0]), arguments.measure[1])))
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "data"
        sentences = make(folder, int(arguments.millions * 1e6))
        warm_up = ("sentences", "streams")  # the first to open a view writes the cache files that the others map
        for number, kind in enumerate([*warm_up, *PLANS]):
            command = [sys.executable, __file__, "--measure", str(folder), kind]
            environment = os.environ | {"HF_DATASETS_CACHE": str(Path(root) / "cache"), "OMP_NUM_THREADS": "1"}
            result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            if number >= len(warm_up):
                report(kind, sentences, json.loads(result.stdout))


def report(kind: str, sentences: int, measured: dict[str, float]) -> None:
    """Prints a line of results."""
    per_sentence = f"{measured['anonymous'] / sentences:5.1f} bytes per sentence (peak {measured['peak'] / sentences:.1f})"
    print(
        f"{kind:<10} {measured['tokens'] / 1e6:,.0f} M tokens, {sentences:,} sentences: {per_sentence}, "
        f"{measured['anonymous'] / 1e6:,.0f} MB in total; mapped pages {measured['mapped'] / 1e6:,.0f} MB; "
        f"opened in {measured['opened']:.1f} s, first batch of an epoch in {measured['first']:.2f} s, others in "
        f"{measured['batch'] * 1e3:.2f} ms each",
        flush=True,
    )


def measure(folder: Path, kind: str) -> dict[str, float]:
    """Opens a plan and reads batches of two epochs; returns bytes and seconds."""
    import datasets  # imported before anything is counted
    import torch

    from packlm.distributed import Ranks
    from train import setup

    datasets.disable_progress_bars()
    manifest = dataset.read_manifest(folder)
    settings = config.resolve({"dataset": {"dir": folder}, "train": PLANS[kind]})
    before, peak, done = resident("RssAnon"), [0], threading.Event()

    def track_peak() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident("RssAnon") - before)

    tracker = threading.Thread(target=track_peak)
    tracker.start()
    started = time.perf_counter()
    plan = setup.open_plan(settings, manifest, Ranks(0, 1, torch.device("cpu")))
    opened = time.perf_counter() - started
    first = batches = 0.0
    for epoch in (0, 1):
        started = time.perf_counter()
        plan.share(epoch, 0, 0, 1)
        first, started = time.perf_counter() - started, time.perf_counter()
        for step in range(1, 101):
            plan.share(epoch, step, 0, 1)
        batches = (time.perf_counter() - started) / 100
    done.set()
    tracker.join()
    measured = {"anonymous": resident("RssAnon") - before, "peak": peak[0], "mapped": resident("RssFile"), "opened": opened, "first": first}
    return measured | {"batch": batches, "tokens": manifest.split("train").tokens}


def resident(kind: str) -> int:
    """Bytes of a kind of resident memory of this process, as named in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind + ":"))


def make(folder: Path, tokens: int) -> int:
    """Writes the dataset, shard by shard; returns its number of sentences."""
    types, generator = dataset.ColumnTypes(VOCABULARY, LENGTH), np.random.default_rng(1)
    shards: dict[dataset.View, dict[str, dataset.Shard]] = {view: {} for view in dataset.VIEWS}
    counts = np.zeros(4, np.int64)
    for number in range(SHARDS):
        lengths = np.clip(generator.gamma(4.0, 5.5, tokens // SHARDS // 22), 1, 120).astype(np.int64)
        ends = np.cumsum(lengths)
        ids = generator.integers(1, VOCABULARY, int(ends[-1])).astype(np.uint16)
        ids[ends - 1] = 0
        opens = np.concatenate([[0], ends[:-1]])[::20]
        starts = np.arange(0, len(ids), LENGTH)
        stops = np.minimum(starts + LENGTH, len(ids))
        document = np.arange(len(ends)) // 20
        ones, blank = np.ones(len(ends), np.int32), np.full(len(ends), "\n")
        columns = {"document": document.astype("U8"), "position": (np.arange(len(ends)) % 20).astype(np.int32), "words": ones}
        columns |= {"bytes": ones, "joined": ones == 0, "lead": blank, "gap": blank}
        tables = {
            "fixed": dataset.fixed_table(ids, opens, starts, stops, 0, types),
            "sentences": dataset.sentences_table(ids, ends, columns, types),
        }
        for view in dataset.VIEWS:
            name = dataset.shard_name(view, "train", number, SHARDS)
            with dataset.ShardWriter(folder / name, view, types) as writer:
                writer.write(tables[view])
            shards[view][name] = dataset.Shard(writer.rows, len(ids), files.sha256(writer.path))
        counts += [len(opens), len(ends), len(ids), int(lengths.max())]
    splits = {"train": dataset.Split(*counts[:3].tolist(), *[int(counts[2])] * 2, 0, 0, 120, shards)}
    settings: dict[str, dict[str, str]] = {"corpus": {}}
    digests = {"settings": files.digest(settings), "corpus": dataset.corpus_digest({}), "tokenizer": "none"}
    digests["content"] = dataset.content_digest(splits)
    dataset.write_manifest(folder, dataset.Manifest(settings, digests, VOCABULARY, LENGTH, False, splits, {}, {}))
    return int(counts[1])


if __name__ == "__main__":
    main()

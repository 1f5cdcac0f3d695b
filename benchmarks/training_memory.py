"""How much memory a training's data take: resident bytes a sentence and a fixed row, on a dataset made up for it.

    python benchmarks/training_memory.py --millions 200

Writes both views of random ids (sentences as long as Penn Treebank's, 22 tokens on average, 20 to a document), has `datasets` map them
into memory once, and then, in a process of its own for each kind of batches, opens the plan and takes the first batches of two epochs.
What is counted is memory of the process's own (RssAnon, asked before and after); pages of mapped files, which the system takes back
when it needs them, are said besides. Linux only.
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
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1])))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        sentences = make(folder, int(given.millions * 1e6))
        filling = ("sentences", "streams")  # the first to open a view makes the files that the others map
        for number, kind in enumerate([*filling, *PLANS]):
            command = [sys.executable, __file__, "--measure", str(folder), kind]
            environment = os.environ | {"HF_DATASETS_CACHE": str(Path(place) / "cache"), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            if number >= len(filling):
                report(kind, sentences, json.loads(done.stdout))


def report(kind: str, sentences: int, found: dict[str, float]) -> None:
    """A line for people."""
    per = f"{found['own'] / sentences:5.1f} bytes a sentence ({found['peak'] / sentences:.1f} at most)"
    print(
        f"{kind:<10} {found['tokens'] / 1e6:,.0f} M tokens, {sentences:,} sentences: {per}, {found['own'] / 1e6:,.0f} MB in all; "
        f"mapped pages {found['mapped'] / 1e6:,.0f} MB; opened in {found['opened']:.1f} s, an epoch's first batch "
        f"in {found['first']:.2f} s, the others in {found['batch'] * 1e3:.2f} ms each",
        flush=True,
    )


def measure(folder: Path, kind: str) -> dict[str, float]:
    """Opens a plan and takes batches of two epochs of it; bytes and seconds."""
    import datasets  # imported before anything is counted

    from packlm.dataset.views import Sentences, Stream
    from train.batches import build as plans

    datasets.disable_progress_bars()
    manifest = dataset.read_manifest(folder)
    settings = config.Train.model_validate(PLANS[kind])
    before, peak, done = resident("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident("RssAnon") - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    sentences = Sentences.open(folder, manifest, "train") if kind == "sentences" else None
    stream = Stream.open(folder, manifest, "train") if sentences is None else None
    plan = plans.build(settings, sentences, stream, LENGTH, seed=1)
    opened = time.perf_counter() - began
    first = batches = 0.0
    for epoch in (0, 1):
        began = time.perf_counter()
        plan.share(epoch, 0, 0, 1)
        first, began = time.perf_counter() - began, time.perf_counter()
        for step in range(1, 101):
            plan.share(epoch, step, 0, 1)
        batches = (time.perf_counter() - began) / 100
    done.set()
    watcher.join()
    found = {"own": resident("RssAnon") - before, "peak": peak[0], "mapped": resident("RssFile"), "opened": opened, "first": first}
    return found | {"batch": batches, "tokens": manifest.split("train").tokens}


def resident(what: str) -> int:
    """Bytes of a kind of memory that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


def make(folder: Path, tokens: int) -> int:
    """Writes the dataset, shard by shard; returns its number of sentences."""
    like, drawn = dataset.ColumnTypes(VOCABULARY, LENGTH), np.random.default_rng(1)
    shards: dict[dataset.View, dict[str, dataset.Shard]] = {view: {} for view in dataset.VIEWS}
    counts = np.zeros(4, np.int64)
    for number in range(SHARDS):
        lengths = np.clip(drawn.gamma(4.0, 5.5, tokens // SHARDS // 22), 1, 120).astype(np.int64)
        ends = np.cumsum(lengths)
        ids = drawn.integers(1, VOCABULARY, int(ends[-1])).astype(np.uint16)
        ids[ends - 1] = 0
        opens = np.concatenate([[0], ends[:-1]])[::20]
        starts = np.arange(0, len(ids), LENGTH)
        stops = np.minimum(starts + LENGTH, len(ids))
        document = np.arange(len(ends)) // 20
        ones, blank = np.ones(len(ends), np.int32), np.full(len(ends), "\n")
        columns = {"document": document.astype("U8"), "position": (np.arange(len(ends)) % 20).astype(np.int32), "words": ones}
        columns |= {"bytes": ones, "joined": ones == 0, "lead": blank, "gap": blank}
        tables = {
            "fixed": dataset.fixed_table(ids, opens, starts, stops, 0, like),
            "sentences": dataset.sentences_table(ids, ends, columns, like),
        }
        for view in dataset.VIEWS:
            name = dataset.shard_name(view, "train", number, SHARDS)
            with dataset.ShardWriter(folder / name, view, like) as writer:
                writer.write(tables[view])
            shards[view][name] = dataset.Shard(writer.rows, len(ids), files.sha256(writer.path))
        counts += [len(opens), len(ends), len(ids), int(lengths.max())]
    splits = {"train": dataset.Split(*counts[:3].tolist(), *[int(counts[2])] * 2, 0, 0, 120, shards)}
    settings: dict[str, dict[str, str]] = {"corpus": {}}
    digests = {"settings": files.digest(settings), "corpus": dataset.corpus_digest({}), "tokenizer": "none"}
    digests["content"] = dataset.content_digest(splits)
    dataset.write_manifest(folder, dataset.Manifest(settings, {}, digests, VOCABULARY, LENGTH, False, splits, {}, {}))
    return int(counts[1])


if __name__ == "__main__":
    main()

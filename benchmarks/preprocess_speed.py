"""Speed of preprocessing compared with `datasets.map`, from the same file to ids on the disk.

    python benchmarks/preprocess_speed.py --kind word
    python benchmarks/preprocess_speed.py --kind bpe --megabytes 60 --rounds 3
    python benchmarks/preprocess_speed.py --kind word --megabytes 2000 --sides ours ours2

The corpus is generated: lines of words with Zipf's frequencies, one sentence each, repeated after 200 MB. Costs that do not depend on its
size (starting workers, new words, the report) weigh less the larger it is. The tokenizer is trained beforehand, for all sides alike. A side
runs in its own process and is timed there, without imports; the sides take turns, so that other load on the machine affects all of them:

    map      datasets.load_dataset("text") and .map(batched=True) over encode_batch: ids in an Arrow file
    fast     encode_batch_fast alone, on lines in memory: ids in Python lists, nothing written
    ours     python -m preprocess, one worker: text checked and counted, both views, digests, report
    ours2    the same with two workers
    apart    `ours` twice at once, in two folders: the speed-up that the machine allows two workers

`map`, `fast` and `ours` use one thread. Prints MB/s and ratios of medians; fails unless the ids of all sides are equal.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from made_up_text import make_corpus

SIDES = ("map", "fast", "ours", "ours2", "apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["word", "bpe"], default="word")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=SIDES)
    parser.add_argument("--side", choices=SIDES[:4], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side = {"map": map_side, "fast": fast_side, "ours": ours_side, "ours2": ours_side}[arguments.side]
        print(json.dumps(run_side(arguments.folder, arguments.side)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = folder / "corpus.txt"
        make_corpus(corpus, arguments.megabytes * 1_000_000, repeat=200_000_000)
        train_tokenizer(folder, arguments.kind)
        size = corpus.stat().st_size / 1e6
        seconds: dict[str, list[float]] = {side: [] for side in arguments.sides}
        digests = set()
        for _ in range(arguments.rounds):
            for side in arguments.sides:
                result = run(folder, side, arguments.kind)
                seconds[side].append(result["seconds"])
                digests |= {result["ids"]} - {None}
        if len(digests) != 1:
            sys.exit(f"the ids differ: {digests}")
        print(f"{arguments.kind}, {size:.0f} MB, {arguments.rounds} rounds, ids equal")
        for side in arguments.sides:
            speeds = sorted(size / value for value in seconds[side])
            print(f"{side:6} {median(speeds):6.1f} MB/s ({speeds[0]:.1f} to {speeds[-1]:.1f})")
        for side, other in (("ours", "map"), ("ours", "fast"), ("ours2", "ours"), ("apart", "ours")):
            if {side, other} <= {*arguments.sides}:
                print(f"{side} / {other}: {median(seconds[other]) / median(seconds[side]):.2f}")


def run(folder: Path, side: str, kind: str) -> dict[str, Any]:
    """Runs one side in its own process; `apart` in two, and returns half the seconds of the slower one."""
    threads = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--kind", kind, "--side", "ours" if side == "apart" else side, "--folder", str(folder)]
    times = 2 if side == "apart" else 1
    running = [subprocess.Popen(command, env={**os.environ, **threads}, stdout=subprocess.PIPE) for _ in range(times)]
    results: list[dict[str, Any]] = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return {"seconds": max(result["seconds"] for result in results) / times, "ids": results[0]["ids"]}


def train_tokenizer(folder: Path, kind: str) -> None:
    """A vocabulary of 10,000 from the first 20 MB."""
    from packlm import config
    from packlm.text import tokenizer, tokenizers

    with open(folder / "corpus.txt", encoding="utf-8") as stream:
        lines = [line.strip() for line in stream.readlines(20_000_000)]
    tokenizer.save(tokenizers.train(config.Tokenizer(kind=kind, vocab_size=10_000), lines).to_str(), folder / "tokenizer")


def map_side(corpus_folder: Path, side: str) -> dict[str, Any]:
    import datasets
    import numpy as np
    from tokenizers import Tokenizer

    from packlm.dataset import ids_digest

    datasets.disable_progress_bars()
    model = Tokenizer.from_file(str(corpus_folder / "tokenizer" / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        text = datasets.load_dataset("text", data_files=str(corpus_folder / "corpus.txt"), split="train", cache_dir=cache)
        made = text.map(lambda rows: {"ids": [row.ids for row in model.encode_batch(rows["text"])]}, batched=True, remove_columns=["text"])
        seconds = time.perf_counter() - began
        flat = np.concatenate([chunk.flatten().to_numpy() for chunk in made.data.column("ids").chunks])
    return {"seconds": seconds, "ids": ids_digest(flat)}


def fast_side(corpus_folder: Path, side: str) -> dict[str, Any]:
    from tokenizers import Tokenizer

    model = Tokenizer.from_file(str(corpus_folder / "tokenizer" / "tokenizer.json"))
    with open(corpus_folder / "corpus.txt", encoding="utf-8") as stream:
        lines = [line.strip() for line in stream]
    began = time.perf_counter()
    for start in range(0, len(lines), 10_000):
        [row.ids for row in model.encode_batch_fast(lines[start : start + 10_000])]
    return {"seconds": time.perf_counter() - began, "ids": None}


def ours_side(corpus_folder: Path, side: str) -> dict[str, Any]:
    import numpy as np
    import pyarrow.parquet as pq

    from packlm import config, dataset
    from preprocess.build.stage import build

    with tempfile.TemporaryDirectory() as folder:
        settings = config.resolve(
            {
                "corpus": {"train": str(corpus_folder / "corpus.txt"), "document": "line", "sentences": "none"},
                "tokenizer": {"kind": "file", "file": corpus_folder / "tokenizer" / "tokenizer.json"},
                "dataset": {"dir": Path(folder) / "data", "workers": 2 if side == "ours2" else 1},
                "tracking": {"uri": ""},
            }
        )
        began = time.perf_counter()
        manifest = build(settings).manifest
        seconds = time.perf_counter() - began
        paths = list(dataset.shard_digests(settings.dataset.dir, manifest, "sentences", "train"))
        columns = [pq.read_table(path, columns=["ids"]).column("ids") for path in paths]
        flat = np.concatenate([chunk.flatten().to_numpy() for column in columns for chunk in column.chunks])
    return {"seconds": seconds, "ids": dataset.ids_digest(flat[flat != 0])}


if __name__ == "__main__":
    main()

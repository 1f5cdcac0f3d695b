"""Encoding speed of packlm's encoder, `datasets.map` and `tokenizers` itself, on one thread.

    python benchmarks/encoding_speed.py --bytes 20000000                   # synthetic text
    python benchmarks/encoding_speed.py --text FILE... --rounds 5          # the lines of text files

The methods take turns in one run; CPU time is measured, and the ratios are what counts. Each returns the ids of all lines, end to end, as
one array: `map` from a dataset in memory into one with a column of ids (converted after the clock stops), `encode_batch` and
`encode_batch_fast` from a list of strings, ours from UTF-8 bytes, splitting them into lines included. Tokenizers are trained on the text
itself. All methods must give the same ids.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
from made_up_text import make_corpus

from packlm.config import Corpus
from packlm.config import Tokenizer as Settings
from packlm.text import tokenizer, tokenizers
from packlm.text.document_block import DocumentBlock
from packlm.text.document_encoding import encode_documents
from packlm.text.encoder import Encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=20_000_000, help="size of the synthetic text")
    parser.add_argument("--text", nargs="+", type=Path, help="text files to use instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=10_000)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    text = "\n".join(path.read_text(encoding="utf-8") for path in arguments.text) if arguments.text else synthetic_text(arguments.bytes)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    print(f"{len(text.encode()):,} bytes, {len(lines):,} lines, {len(set(text.split())):,} distinct words")
    for kind in ("word", "bpe"):
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings.model_validate({"kind": kind, "vocab_size": arguments.vocab_size})
            tokenizer.save(tokenizers.train(settings, lines).to_str(), Path(folder))
            compare(kind, text, lines, Path(folder), arguments.rounds)


def synthetic_text(size: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(Path(folder) / "text", size)
        return (Path(folder) / "text").read_text(encoding="utf-8")


def compare(kind: str, text: str, lines: list[str], folder: Path, rounds: int) -> None:
    """Times all methods, checks that they agree, and prints a table."""
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    model = tokenizer.load(folder / tokenizer.NAME)
    rows = datasets.Dataset.from_dict({"text": lines})
    data = np.frombuffer(text.encode(), np.uint8)
    block = DocumentBlock(pa.array(["text"]), data, np.array([len(data)]))

    def mapped() -> object:
        def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            return {"ids": [encoding.ids for encoding in model.encode_batch(batch["text"], add_special_tokens=False)]}

        return rows.map(encode, batched=True, remove_columns=["text"], keep_in_memory=True)

    def flat(encode: Callable[..., list]) -> np.ndarray:
        runs = []
        for start in range(0, len(lines), 1000):
            encodings = encode(lines[start : start + 1000], add_special_tokens=False)
            runs.append(np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64))
        return np.concatenate(runs)

    def ours() -> np.ndarray:
        # A new encoder with an empty cache; its tokenizer is loaded already, as those of the others are.
        return encode_documents(block, Corpus(sentences="line"), Encoder(model, "")).ids

    methods: dict[str, Callable[[], object]] = {
        "datasets.map": mapped,
        "encode_batch": lambda: flat(model.encode_batch),
        "encode_batch_fast": lambda: flat(model.encode_batch_fast),
        "ours": ours,
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        results = {}
        for name, method in methods.items():
            start_time = time.process_time()
            results[name] = method()
            seconds[name].append(time.process_time() - start_time)
        if number == 0:
            check(results, model.token_to_id("<eos>"))
    print(f"\n{kind:20} MB/s: {'min':>8} {'median':>8} {'max':>8}   speed of ours relative to it")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        speeds = [len(data) / 1e6 / value for value in (max(values), medians[name], min(values))]
        print(f"{name:26} " + " ".join(f"{speed:8.2f}" for speed in speeds) + f"   {medians[name] / medians['ours']:8.2f}")


def check(results: dict, eos: int) -> None:
    """Exits with an error if two methods give different ids; ours have an `<eos>` after each line."""
    flat = {name: result for name, result in results.items() if name != "datasets.map"}
    flat["datasets.map"] = results["datasets.map"].with_format("arrow")[:].column("ids").combine_chunks().flatten().to_numpy()
    flat["ours"] = flat["ours"][flat["ours"] != eos]
    for name, ids in flat.items():
        if not np.array_equal(ids, flat["encode_batch"]):
            sys.exit(f"{name} gives other ids than encode_batch")


if __name__ == "__main__":
    main()

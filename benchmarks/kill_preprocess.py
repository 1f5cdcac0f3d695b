"""Kills preprocessing at random moments, runs it again, and compares what comes out with an undisturbed run, byte by byte.

    python benchmarks/kill_preprocess.py --times 50
    python benchmarks/kill_preprocess.py --times 500 --seed 7 --kind bpe

Each time: an empty place, `python -m preprocess` in a process group of its own, kill -9 of the whole group after a time drawn from the
length of an undisturbed run, then the same command again to its end. The digest of every file of the dataset must be what it was.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=["word", "bpe"], default="word")
    given = parser.parse_args()
    drawn = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_corpus(folder / "corpus", drawn)
        began = time.monotonic()
        finish(start(folder, "whole", given.kind))
        length = time.monotonic() - began
        whole = digest(folder / "whole")
        print(f"undisturbed: {length:.1f} s, {len(whole)} files")
        seen: Counter[str] = Counter()
        for number in range(1, given.times + 1):
            name = f"run-{number}"
            process = start(folder, name, given.kind)
            time.sleep(drawn.uniform(0, length))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            left = where(folder, name)
            finish(start(folder, name, given.kind))
            equal = digest(folder / name) == whole and not (folder / f".{name}.building").exists()
            seen[left] += 1
            seen["equal"] += equal
            if not equal:
                print(f"{number}: DIFFERS after a kill {left}")
            shutil.rmtree(folder / name)
    moments = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()) if what != "equal")
    print(f"killed {given.times} times ({moments}); equal to the undisturbed run: {seen['equal']} of {given.times}")
    sys.exit(seen["equal"] != given.times)


def make_corpus(folder: Path, drawn: random.Random) -> None:
    """Some files of made-up sentences, one of them large."""
    folder.mkdir()
    words = ["".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=drawn.randint(1, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for number, sentences in enumerate([20_000, 3_000, 3_000, 50, 1]):
        lines = [" ".join(drawn.choices(words, weights, k=drawn.randint(3, 30))) + "." for _ in range(sentences)]
        (folder / f"{number}.txt").write_text("\n".join(lines) + "\n")


def start(folder: Path, name: str, kind: str) -> "subprocess.Popen[bytes]":
    """The command, in a process group of its own."""
    settings = {
        "corpus.format": "auto", "corpus.train": folder / "corpus", "corpus.document": "line", "corpus.sentences": "sentencex",
        "corpus.validation_fraction": "0.1", "corpus.test_fraction": "0.1", "tokenizer.kind": kind, "tokenizer.vocab_size": "2000",
        "dataset.dir": folder / name, "dataset.workers": "2", "dataset.shards": "3", "tracking.uri": "",
    }  # fmt: skip
    arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return subprocess.Popen([sys.executable, "-m", "preprocess", *arguments], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the command to end well."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"preprocess ended with {process.returncode}:\n{errors.decode()}")


def where(folder: Path, name: str) -> str:
    """How far a killed run had come, by what it left behind."""
    work = folder / f".{name}.building"
    if not work.exists():
        return "after the end" if (folder / name).exists() else "before any work"
    for step, pattern in (("among the shards", "*/done/*.json"), ("at the tokenizer", "*/counts"), ("collecting", "*/texts")):
        if any(work.glob(pattern)):
            return step
    return "at the survey"


def digest(folder: Path) -> dict[str, str]:
    """File name -> digest, of every file in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


if __name__ == "__main__":
    main()

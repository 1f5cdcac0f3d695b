"""Kills preprocessing at random moments, runs it again, and compares the dataset with that of an undisturbed run, byte by byte.

    python benchmarks/kill_preprocess.py --times 50
    python benchmarks/kill_preprocess.py --times 500 --seed 7 --kind bpe

Each time: `python -m preprocess` into a new folder, in its own process group; at a random time within the duration of an undisturbed run
kill -9 of the group, or, every other time, of one of its worker processes alone; then the same command again to its end. Every file of the
dataset and beside it, hidden ones too, must have the digest that it has without the kill.
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
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_corpus(folder / "corpus", generator)
        began = time.monotonic()
        finish(start(folder, "reference", arguments.kind))
        duration = time.monotonic() - began
        reference = digests(folder / "reference")
        print(f"undisturbed: {duration:.1f} s, {len(reference)} files")
        steps: Counter[str] = Counter()
        num_equal = 0
        for number in range(1, arguments.times + 1):
            name = f"run-{number}"
            process = start(folder, name, arguments.kind)
            time.sleep(generator.uniform(0, duration))
            workers = children(process.pid) if number % 2 else []
            if workers:
                os.kill(generator.choice(workers), signal.SIGKILL)
                step = f"of a worker {killed_step(folder, name)}"
                finish(process)
            else:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                step = killed_step(folder, name)
            finish(start(folder, name, arguments.kind))
            equal = digests(folder / name) == reference and not [*folder.glob(f".{name}.*")]
            steps[step] += 1
            num_equal += equal
            if not equal:
                print(f"{number}: DIFFERS after a kill {step}")
            shutil.rmtree(folder / name)
    print(f"killed {arguments.times} times ({', '.join(f'{count} {step}' for step, count in sorted(steps.items()))})")
    print(f"equal to the undisturbed run: {num_equal} of {arguments.times}")
    sys.exit(num_equal != arguments.times)


def make_corpus(folder: Path, generator: random.Random) -> None:
    """Writes some files of random sentences, one of them large."""
    folder.mkdir()
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(1, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for number, sentences in enumerate([20_000, 3_000, 3_000, 50, 1]):
        lines = [" ".join(generator.choices(words, weights, k=generator.randint(3, 30))) + "." for _ in range(sentences)]
        (folder / f"{number}.txt").write_text("\n".join(lines) + "\n")


def start(folder: Path, name: str, kind: str) -> "subprocess.Popen[bytes]":
    """Starts the command in a process group of its own."""
    settings = {
        "corpus.format": "auto", "corpus.train": folder / "corpus", "corpus.document": "line", "corpus.sentences": "sentencex",
        "corpus.validation_fraction": "0.1", "corpus.test_fraction": "0.1", "tokenizer.kind": kind, "tokenizer.vocab_size": "2000",
        "dataset.dir": folder / name, "dataset.workers": "2", "dataset.shards": "3", "tracking.uri": "",
    }  # fmt: skip
    arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return subprocess.Popen([sys.executable, "-m", "preprocess", *arguments], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the command; exits with its messages if it fails."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"preprocess exited with status {process.returncode}:\n{errors.decode()}")


def children(pid: int) -> list[int]:
    """Ids of the processes that a process has started: its workers."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def killed_step(folder: Path, name: str) -> str:
    """The step that a killed run had reached, by what is in its work folder."""
    work = folder / f".{name}.building"
    if not work.exists():
        return "after the end" if (folder / name).exists() else "before any work"
    for step, pattern in (
        ("in making shards", "shards/*.json"),
        ("in training the tokenizer", "counts/*"),
        ("in extraction", "extracted/*"),
    ):
        if any(work.glob(f"*/{pattern}")):
            return step
    return "in the scan"


def digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, of every file in a folder, hidden ones too."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


if __name__ == "__main__":
    main()

"""How much memory preprocessing takes: resident at most, each process by itself, for a corpus of some size and a single long document.

    python benchmarks/preprocess_memory.py --megabytes 2000
    python benchmarks/preprocess_memory.py --megabytes 100 --one-document --sentences sentencex

Makes up a corpus (lines of words with Zipf's frequencies; beyond 200 MB, the same again), runs `python -m preprocess` on it, and
asks the system twenty times a second for the high-water mark (VmHWM) of the command and of each of its workers. Linux only.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up_text import make_corpus

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--one-document", action="store_true", help="the file is a document; otherwise each line")
    parser.add_argument("--one-line", action="store_true", help="without a line feed anywhere")
    parser.add_argument("--wide", action="store_true", help="ends in U+1F600: text that has it takes Python four bytes a character")
    parser.add_argument("--sentences", choices=["line", "sentencex", "none"], default="line")
    parser.add_argument("--kind", choices=["word", "bpe", "character"], default="word")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "corpus.txt"
        make_corpus(path, given.megabytes * 1_000_000, " " if given.one_line else "\n", repeat=200_000_000)
        with open(path, "ab") as stream:
            stream.write("The end \U0001f600.".encode() if given.wide else b"")
        settings = {
            "corpus.format": "auto", "corpus.train": path, "corpus.document": "file" if given.one_document else "line",
            "corpus.validation_fraction": 0, "corpus.test_fraction": 0, "corpus.sentences": given.sentences, "tokenizer.kind": given.kind,
            "tokenizer.vocab_size": 30_000, "dataset.dir": Path(place) / "data", "dataset.workers": given.workers, "tracking.uri": "",
        }  # fmt: skip
        arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "preprocess", *arguments], cwd=ROOT)
        peaks = watch(process)
        seconds, size = time.monotonic() - began, path.stat().st_size
    if process.returncode:
        sys.exit(process.returncode)
    workers = max((peak for pid, peak in peaks.items() if pid != process.pid), default=0)
    print(
        f"{size / 1e6:,.0f} MB in {seconds:.0f} s ({size / 1e6 / seconds:.1f} MB/s); resident at most: "
        f"{peaks[process.pid] / 1e6:,.0f} MB the command, {workers / 1e6:,.0f} MB a worker"
    )


def watch(process: "subprocess.Popen[bytes]") -> dict[int, int]:
    """Process -> bytes resident at most, of the command and all below it, until it ends."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in family(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), high_water(pid))
        time.sleep(0.05)
    return peaks


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()

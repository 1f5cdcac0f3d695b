"""Peak memory of preprocessing, for the command and its workers, on a corpus of a given size or a single long document.

    python benchmarks/preprocess_memory.py --megabytes 2000
    python benchmarks/preprocess_memory.py --megabytes 100 --one-document --sentences sentencex

Generates a corpus (lines of words with Zipf's frequencies, repeated after 200 MB), runs `python -m preprocess` on it, and reads the peak
resident memory (VmHWM) of the command and of each worker twenty times a second. Linux only.
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
    parser.add_argument("--one-document", action="store_true", help="the file is one document, instead of one per line")
    parser.add_argument("--one-line", action="store_true", help="no line feeds")
    parser.add_argument(
        "--wide", action="store_true", help="the text contains U+1F600, so that a Python string takes four bytes per character"
    )
    parser.add_argument("--sentences", choices=["line", "sentencex", "none"], default="line")
    parser.add_argument("--kind", choices=["word", "bpe", "character"], default="word")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "corpus.txt"
        make_corpus(path, args.megabytes * 1_000_000, " " if args.one_line else "\n", repeat=200_000_000)
        with open(path, "ab") as stream:
            stream.write("The end \U0001f600.".encode() if args.wide else b"")
        settings = {
            "corpus.format": "auto", "corpus.train": path, "corpus.document": "file" if args.one_document else "line",
            "corpus.validation_fraction": 0, "corpus.test_fraction": 0, "corpus.sentences": args.sentences, "tokenizer.kind": args.kind,
            "tokenizer.vocab_size": 30_000, "dataset.dir": Path(temporary) / "data", "dataset.workers": args.workers, "tracking.uri": "",
        }  # fmt: skip
        arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "preprocess", *arguments], cwd=ROOT)
        peaks = monitor(process)
        seconds, size = time.monotonic() - began, path.stat().st_size
    if process.returncode:
        sys.exit(process.returncode)
    workers = max((peak for pid, peak in peaks.items() if pid != process.pid), default=0)
    print(
        f"{size / 1e6:,.0f} MB in {seconds:.0f} s ({size / 1e6 / seconds:.1f} MB/s); peak memory: "
        f"{peaks[process.pid] / 1e6:,.0f} MB for the command, {workers / 1e6:,.0f} MB per worker"
    )


def monitor(process: "subprocess.Popen[bytes]") -> dict[int, int]:
    """Process id -> peak resident bytes, of the command and its descendants, until it exits."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in descendants(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), peak_memory(pid))
        time.sleep(0.05)
    return peaks


def descendants(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return pids


def peak_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()

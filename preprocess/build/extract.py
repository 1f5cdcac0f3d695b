"""The collect task: reads some parts of the corpus, cleans their documents, and says in a file of the work folder what they are.

Everything after it reads from there: nothing is cleaned or cut into sentences twice.
"""

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from packlm.base import files
from packlm.config import Corpus
from packlm.corpus import documents
from packlm.corpus.sources import Part
from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock

from . import extracted, scan
from .task_output import ArrowTask

HASH_BYTES = 16


@dataclass(frozen=True)
class ExtractTask(ArrowTask):
    """Some parts, of sources given for one split, and all that collecting them takes; goes to another process as it is."""

    index: int
    given: str
    parts: tuple[Part, ...]
    corpus: Corpus
    spelled_eos: str
    folder: Path
    """Where the collected text goes."""

    @property
    def name(self) -> str:
        return f"texts-{self.index:05d}"

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def reads(self) -> str:
        """A digest of what is read: parts of files as these are now."""
        return files.digest([[self.given, part.start, part.stop, part.number, *part.source.fingerprint()] for part in self.parts])

    def finished(self) -> bool:
        """Whether that was done before, of the same parts, and both the collected file and what it was collected from are as they were."""
        return super().finished() and result(self)["reads"] == self.reads()

    @property
    def hashes(self) -> Path:
        """[D, 16] a hash of each document's text, where duplicates are looked for."""
        return self.folder / f"{self.name}.hashes.npy"


def tasks(scanned: scan.Scan, corpus: Corpus, spelled_eos: str, folder: Path) -> list[ExtractTask]:
    """One task for consecutive parts of a listed split of about `scan.PART_BYTES` together, at least one part each."""
    groups: list[tuple[str, list[Part]]] = []
    size = 0
    for split, part in scanned.parts:
        if not groups or split != groups[-1][0] or size + part.size > scan.PART_BYTES:
            groups.append((split, []))
            size = 0
        groups[-1][1].append(part)
        size += part.size
    return [ExtractTask(index, split, tuple(parts), corpus, spelled_eos, folder) for index, (split, parts) in enumerate(groups)]


def make(job: ExtractTask) -> None:
    """Collects the documents of a job's parts; then writes `job.done`."""
    counts: Counter[str] = Counter()
    batches: list[dict[str, list[int]]] = []
    hashes, reads = [], job.reads()
    with files.atomic(job.path) as stream, extracted.ExtractedWriter(stream, job.corpus) as writer:
        for texts in documents.read_all(job.parts, job.corpus, job.spelled_eos, counts):
            splits = split_numbers(texts, job.given, job.corpus)
            writer.write(texts, splits)
            batches.append(_sizes(splits, np.diff(texts.ends, prepend=0)))
            if job.corpus.duplicates == "skip":
                hashes.append(_hashes(texts))
    if job.corpus.duplicates == "skip":
        with files.atomic(job.hashes) as stream:
            np.save(stream, np.concatenate(hashes or [np.empty((0, HASH_BYTES), np.uint8)]))
    job.finish({"batches": batches, "counts": dict(+counts), "reads": reads})


def split_numbers(texts: DocumentBlock, given: str, rules: Corpus) -> np.ndarray:
    """[D] uint8: the place in SPLITS of each document of a source given for split `given`."""
    if given != "train" or not (rules.validation_fraction or rules.test_fraction):
        return np.full(len(texts), SPLITS.index(given), np.uint8)
    return np.array([SPLITS.index(_drawn(name, rules)) for name in texts.names.to_pylist()], np.uint8)


def _drawn(name: str, rules: Corpus) -> str:
    """The split of a document where fractions divide: by a hash of its name, so that other documents change nothing about it."""
    drawn = int.from_bytes(sha256(f"{rules.split_seed}\n{name}".encode()).digest()[:8]) / 2**64
    if drawn < rules.validation_fraction:
        return "validation"
    return "test" if drawn >= 1 - rules.test_fraction else "train"


def _sizes(splits: np.ndarray, lengths: np.ndarray) -> dict[str, list[int]]:
    """Documents and bytes of each split in a batch."""
    return {
        "documents": np.bincount(splits, minlength=len(SPLITS)).tolist(),
        "bytes": [int(lengths[splits == number].sum()) for number in range(len(SPLITS))],
    }


def _hashes(texts: DocumentBlock) -> np.ndarray:
    data, bounds = texts.data.data, [0, *texts.ends.tolist()]
    made = b"".join(blake2b(data[start:end], digest_size=HASH_BYTES).digest() for start, end in pairwise(bounds))
    return np.frombuffer(made, np.uint8).reshape(-1, HASH_BYTES)


def result(job: ExtractTask) -> dict[str, Any]:
    """What `make` wrote last."""
    values: dict[str, Any] = files.read_json(job.done)
    return values

"""Extracts documents: a task reads parts of the corpus, cleans their documents, and writes them into one extracted file.

All later steps read these files: nothing is cleaned or split into sentences twice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packlm.base import completion, files
from packlm.config import Corpus
from packlm.corpus import cleaning, documents
from packlm.corpus.sources import Part
from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock

from . import duplicates, extracted_file, scan
from .extracted_file import ExtractedFile, ExtractedWriter
from .task import Task


@dataclass(frozen=True)
class ExtractTask(Task):
    """Some parts of the sources that are listed for one split."""

    index: int
    listed_split: str
    parts: tuple[Part, ...]
    corpus: Corpus
    spelled_eos: str
    """`Encoder.spelled_eos` of the tokenizer."""
    folder: Path

    @property
    def name(self) -> str:
        return f"extract-{self.index:05d}"

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def keys(self) -> Path:
        """Keys of the documents, where duplicates are skipped."""
        return self.folder / f"{self.name}.keys.npy"

    def inputs(self) -> dict[str, Any]:
        """The parts, and the files that they are of as these are now."""
        parts = [[part.start, part.stop, part.number, *part.source.fingerprint()] for part in self.parts]
        return {"parts": files.digest([self.listed_split, parts])}


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


def run(task: ExtractTask) -> None:
    """Runs a task. Details in its record: the blocks' documents and bytes by split, and the counts of what cleaning changed."""
    inputs, outputs = task.inputs(), [task.path]
    counts: Counter[str] = Counter()
    blocks: list[dict[str, list[int]]] = []
    keys = duplicates.KeyWriter() if task.corpus.duplicates == "skip" else None
    with files.atomic(task.path) as stream, ExtractedWriter(stream, task.corpus) as writer:
        for texts in documents.read_all(task.parts, task.corpus, task.spelled_eos, counts):
            splits, sizes = split_indices(texts, task.listed_split, task.corpus), np.diff(texts.ends, prepend=0)
            writer.write(texts, splits)
            blocks.append({"documents": sums_by_split(splits), "bytes": sums_by_split(splits, sizes)})
            if keys:
                keys.add(texts, splits)
    if keys:
        keys.write(task.keys)
        outputs.append(task.keys)
    completion.write(task.record, inputs, outputs, {"blocks": blocks, "counts": dict(+counts)})


def results(done: Sequence[ExtractTask]) -> tuple[list[ExtractedFile], Counter[str]]:
    """The extracted files of completed tasks, and the sums of their counts."""
    extracted, counts = [], Counter[str]()
    for task in done:
        details = task.details()
        counts.update(details["counts"])
        num_documents, num_bytes = (
            np.array([block[key] for block in details["blocks"]], np.int64).reshape(-1, len(SPLITS)) for key in ("documents", "bytes")
        )
        extracted.append(ExtractedFile(task.path, num_documents, num_bytes, num_documents.sum(axis=1)))
    return extracted, counts


def wrong_encodings(done: Sequence[ExtractTask]) -> Iterator[str]:
    """A warning for each sign of a wrong encoding that the documents of completed tasks have, with the first document that has it."""
    for sign, remedy in (
        (
            cleaning.C1,
            "text has none: in cp1252 the same bytes are quotation marks and dashes; --corpus.encoding auto chooses for each file",
        ),
        (cleaning.GARBLED, "read UTF-8 files with --corpus.encoding utf-8 or auto, or repair the text before"),
    ):
        counts = [task.details()["counts"].get(sign, 0) for task in done]
        if total := sum(counts):
            first = next(task for task, count in zip(done, counts, strict=True) if count)
            yield f"{total:,} {sign}, the first in {_first_with(sign, first)}: {remedy}"


def _first_with(sign: str, task: ExtractTask) -> str:
    """The first document of a task that has a sign of a wrong encoding."""
    for split in range(len(SPLITS)):
        for texts, _ in extracted_file.read(task.path, 0, split):
            for name, text in texts:
                data = np.frombuffer(text.encode(), np.uint8)
                if cleaning.signs_of_wrong_encoding(data, np.array([len(data)])).get(sign):
                    return name
    return "documents that are skipped later"


def split_indices(texts: DocumentBlock, listed_split: str, corpus: Corpus) -> np.ndarray:
    """[D] uint8: index into SPLITS for each document; `corpus.*_fraction` divide those that are listed in `corpus.train`."""
    if listed_split != "train" or not (corpus.validation_fraction or corpus.test_fraction):
        return np.full(len(texts), SPLITS.index(listed_split), np.uint8)
    return np.array([SPLITS.index(corpus.split_of(name)) for name in texts.names.to_pylist()], np.uint8)


def sums_by_split(splits: np.ndarray, values: np.ndarray | None = None) -> list[int]:
    """The sum of `values` [D] (by default of ones) for each index into SPLITS."""
    return [int(total) for total in np.bincount(splits, values, minlength=len(SPLITS))]

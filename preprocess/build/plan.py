"""What the shards will hold, from what the collect tasks found: runs of whole documents, about equal in bytes, none empty.

Of every block of documents it knows how many there are of each split and how long they are together; single documents are looked
at only in the blocks where a shard begins. So memory does not grow with the number of documents, except by 16 bytes each while
duplicates are looked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from packlm.base import files
from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock

from . import extract, extracted


@dataclass(frozen=True)
class KeptDocuments:
    """Which documents of a collected file are no duplicates, from one of its blocks on."""

    path: Path
    before: int
    """Documents before that block."""

    def load(self) -> np.ndarray:
        """[documents from that block on, of whatever split] bool."""
        return np.load(self.path, mmap_mode="r")[self.before :]


@dataclass(frozen=True)
class Slice:
    """Consecutive documents of a split in one collected file: from batch `first` on, some to pass over, some to take."""

    path: Path
    first: int
    skip: int
    take: int
    kept: KeptDocuments | None


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its split, its number among `count`, and its documents."""

    split: str
    index: int
    count: int
    slices: tuple[Slice, ...]
    size: int
    """About how many bytes of text."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class ExtractedFile:
    """One collected file: documents [batch, split] and bytes [batch, split], duplicates counted out."""

    path: Path
    documents: np.ndarray
    bytes: np.ndarray
    all_documents: np.ndarray
    """[batch] with duplicates."""
    kept: Path | None = None

    def kept_from(self, batch: int) -> KeptDocuments | None:
        """None: there are no duplicates in the file."""
        return KeptDocuments(self.kept, int(self.all_documents[:batch].sum())) if self.kept else None


def found(jobs: Sequence[extract.ExtractTask]) -> list[ExtractedFile]:
    """What the collect tasks found, in order."""
    listed = []
    for job in jobs:
        batches = extract.result(job)["batches"]
        shape = (len(batches), len(SPLITS))
        documents = np.array([batch["documents"] for batch in batches], np.int64).reshape(shape)
        sizes = np.array([batch["bytes"] for batch in batches], np.int64).reshape(shape)
        listed.append(ExtractedFile(job.path, documents, sizes, documents.sum(axis=1)))
    return listed


def without_duplicates(jobs: Sequence[extract.ExtractTask], listed: list[ExtractedFile]) -> tuple[list[ExtractedFile], int]:
    """Leaves out all but one of the documents with one text: test's before validation's before train's, otherwise the first, stays.

    Returns (what is left, how many documents were left out).
    """
    hashes = np.concatenate([np.load(job.hashes) for job in jobs]).view([("high", "<u8"), ("low", "<u8")])[:, 0]
    splits = np.concatenate([_splits(item) for item in listed])
    rank = np.array([SPLITS[::-1].index(split) for split in SPLITS])[splits]
    order = np.lexsort([np.arange(len(hashes)), rank, hashes["low"], hashes["high"]])
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    keep = np.ones(len(hashes), bool)
    keep[order[again]] = False
    left, before = [], 0
    for item in listed:
        mine = keep[before : before + int(item.all_documents.sum())]
        before += len(mine)
        left.append(item if mine.all() else _filtered(item, mine))
    return left, len(again)


def _splits(item: ExtractedFile) -> np.ndarray:
    """[D] the split of every document of a collected file, in order."""
    parts = [np.empty(0, np.uint8), *(extracted.split_column(batch) for batch in extracted.batches(item.path))]
    return np.concatenate(parts)


def _filtered(item: ExtractedFile, kept: np.ndarray) -> ExtractedFile:
    path = item.path.with_suffix(".kept.npy")
    with files.atomic(path) as stream:
        np.save(stream, kept)
    documents, sizes, before = item.documents.copy(), item.bytes.copy(), 0
    for number, batch in enumerate(extracted.batches(item.path)):
        gone = ~kept[before : before + batch.num_rows]
        before += batch.num_rows
        splits, lengths = extracted.split_column(batch)[gone], extracted.lengths(batch)[gone]
        documents[number] -= np.bincount(splits, minlength=len(SPLITS))
        np.subtract.at(sizes[number], splits, lengths)
    return ExtractedFile(item.path, documents, sizes, item.all_documents, path)


def tasks(listed: Sequence[ExtractedFile], shards: int) -> list[ShardPlan]:
    """The shards of all splits, at most `shards` of each."""
    return [task for number in range(len(SPLITS)) for task in _of_split(listed, number, shards)]


def read(task: ShardPlan) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
    """The documents of a shard in order, in blocks, none empty; see `collected.read`."""
    for part in task.slices:
        skip, take = part.skip, part.take
        for texts, pieces in _read(part.path, part.first, SPLITS.index(task.split), part.kept):
            low, high = min(skip, len(texts)), min(skip + take, len(texts))
            skip, take = skip - low, take - (high - low)
            if low < high:
                yield texts[low:high], pieces if pieces is None else _within(pieces, texts, low, high)
            if not take:
                break


def _read(path: Path, first: int, number: int, kept: KeptDocuments | None) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
    return extracted.read(path, first, number, None if kept is None else kept.load())


def _within(pieces: np.ndarray, texts: DocumentBlock, low: int, high: int) -> np.ndarray:
    """The pieces of documents [low, high), counted from the first of these."""
    start, end = texts.starts[low], texts.ends[high - 1]
    return pieces[np.searchsorted(pieces, start) : np.searchsorted(pieces, end)] - start


def _of_split(listed: Sequence[ExtractedFile], number: int, shards: int) -> Iterator[ShardPlan]:
    blocks = [(item, batch) for item in listed for batch in np.flatnonzero(item.documents[:, number]).tolist()]
    documents = np.cumsum([0, *(item.documents[batch, number] for item, batch in blocks)])
    sizes = np.cumsum([0, *(item.bytes[batch, number] for item, batch in blocks)])
    total = int(documents[-1])
    count = min(shards, total)
    cuts = [0]
    for index in range(1, count):
        target = int(sizes[-1]) * index // count
        block = int(np.searchsorted(sizes, target, side="right")) - 1
        item, batch = blocks[block]
        texts, _ = next(_read(item.path, batch, number, item.kept_from(batch)))
        cut = int(documents[block]) + int(np.searchsorted(texts.ends, target - sizes[block])) + 1
        cuts.append(min(max(cut, cuts[-1] + 1), total - (count - index)))
    for index, (low, high) in enumerate(pairwise([*cuts, total] if count else [])):
        size = int(np.diff(np.interp([low, high], documents, sizes))[0])
        yield ShardPlan(SPLITS[number], index, count, tuple(_slices(blocks, documents, low, high)), size)


def _slices(blocks: list[tuple[ExtractedFile, int]], documents: np.ndarray, low: int, high: int) -> Iterator[Slice]:
    """Documents [low, high) of a split; `documents[b]` of them lie before block b."""
    block = int(np.searchsorted(documents, low, side="right")) - 1
    while low < high:
        item, batch = blocks[block]
        first = block
        while block < len(blocks) and blocks[block][0] is item:
            block += 1
        stop = min(high, int(documents[block]))
        yield Slice(item.path, batch, low - int(documents[first]), stop - low, item.kept_from(batch))
        low = stop

"""Plans the shards: consecutive whole documents, about equal in bytes, none empty.

The plan is made from the documents and bytes of each split in each block of extracted text; single documents are looked at only in blocks
where a shard begins. So memory does not grow with the number of documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock

from . import extracted_file
from .extracted_file import ExtractedFile, KeepMask


@dataclass(frozen=True)
class Slice:
    """Consecutive documents of a split in one extracted file: `take` of them after `skip`, from a block on."""

    path: Path
    block: int
    skip: int
    take: int
    keep: KeepMask | None


@dataclass(frozen=True)
class ShardPlan:
    """The documents of one shard."""

    split: str
    index: int
    count: int
    """Shards of the split."""
    slices: tuple[Slice, ...]
    size: int
    """Approximate bytes of text."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"

    def read(self) -> Iterator[tuple[DocumentBlock, np.ndarray | None]]:
        """The documents in order, in blocks, none empty; see `extracted_file.read`."""
        for part in self.slices:
            skip, take = part.skip, part.take
            for texts, pieces in extracted_file.read(part.path, part.block, SPLITS.index(self.split), part.keep):
                low, high = min(skip, len(texts)), min(skip + take, len(texts))
                skip, take = skip - low, take - (high - low)
                if low < high:
                    yield texts[low:high], None if pieces is None else _pieces_within(pieces, texts, low, high)
                if not take:
                    break


def plan_shards(extracted: Sequence[ExtractedFile], limit: int) -> list[ShardPlan]:
    """The shards of all splits, at most `limit` of each."""
    return [shard for split in range(len(SPLITS)) for shard in _plan_split(extracted, split, limit)]


def _pieces_within(pieces: np.ndarray, texts: DocumentBlock, low: int, high: int) -> np.ndarray:
    """The starts of pieces in documents [low, high), relative to the first of these."""
    start, end = texts.starts[low], texts.ends[high - 1]
    return pieces[np.searchsorted(pieces, start) : np.searchsorted(pieces, end)] - start


def _plan_split(extracted: Sequence[ExtractedFile], split: int, limit: int) -> Iterator[ShardPlan]:
    blocks = [(file, block) for file in extracted for block in np.flatnonzero(file.documents[:, split]).tolist()]
    documents = np.cumsum([0, *(file.documents[block, split] for file, block in blocks)])
    sizes = np.cumsum([0, *(file.bytes[block, split] for file, block in blocks)])
    total = int(documents[-1])
    count = min(limit, total)
    cuts = [0]
    for index in range(1, count):
        target = int(sizes[-1]) * index // count
        number = int(np.searchsorted(sizes, target, side="right")) - 1
        file, block = blocks[number]
        texts, _ = next(extracted_file.read(file.path, block, split, file.keep_from(block)))
        cut = int(documents[number]) + int(np.searchsorted(texts.ends, target - sizes[number])) + 1
        cuts.append(min(max(cut, cuts[-1] + 1), total - (count - index)))
    for index, (low, high) in enumerate(pairwise([*cuts, total] if count else [])):
        size = int(np.diff(np.interp([low, high], documents, sizes))[0])
        yield ShardPlan(SPLITS[split], index, count, tuple(_slices(blocks, documents, low, high)), size)


def _slices(blocks: list[tuple[ExtractedFile, int]], documents: np.ndarray, low: int, high: int) -> Iterator[Slice]:
    """The slices of documents [low, high) of a split; `documents[n]` of them precede `blocks[n]`."""
    number = int(np.searchsorted(documents, low, side="right")) - 1
    while low < high:
        file, block = blocks[number]
        first = number
        while number < len(blocks) and blocks[number][0] is file:
            number += 1
        stop = min(high, int(documents[number]))
        yield Slice(file.path, block, low - int(documents[first]), stop - low, file.keep_from(block))
        low = stop

"""Skips duplicates: of the documents with the same text one is kept, of test before validation before train, otherwise the first.

Extraction writes a key for each document; this step compares the keys of all documents, 25 bytes each, in memory.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np

from packlm.base import files
from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock

from .extracted_file import ExtractedFile

_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("split", "u1"), ("bytes", "<i8")])
"""A 128-bit hash of the document's text, its split (index into SPLITS), and its size."""


class KeyWriter:
    """Collects the keys of an extraction task's documents."""

    def __init__(self) -> None:
        self._blocks = [np.empty(0, _KEY)]

    def add(self, texts: DocumentBlock, splits: np.ndarray) -> None:
        """Adds the keys of a block of documents."""
        data, bounds = texts.data.data, [0, *texts.ends.tolist()]
        hashes = b"".join(blake2b(data[start:end], digest_size=16).digest() for start, end in pairwise(bounds))
        keys = np.empty(len(texts), _KEY)
        keys["high"], keys["low"] = np.frombuffer(hashes, "<u8").reshape(-1, 2).T
        keys["split"], keys["bytes"] = splits, np.diff(bounds)
        self._blocks.append(keys)

    def write(self, path: Path) -> None:
        """Writes all keys as an .npy file."""
        with files.atomic(path) as stream:
            np.save(stream, np.concatenate(self._blocks))


def skip(extracted: Sequence[ExtractedFile], key_files: Sequence[Path]) -> tuple[list[ExtractedFile], int]:
    """Returns the extracted files without duplicates (with `keep` set where there are any), and the number of duplicates."""
    of_file = [np.load(path) for path in key_files]
    keys = np.concatenate(of_file)
    priority = np.array([SPLITS[::-1].index(split) for split in SPLITS])[keys["split"]]
    order = np.lexsort([np.arange(len(keys)), priority, keys["low"], keys["high"]])
    ordered = keys[["high", "low"]][order]
    keep = np.ones(len(keys), bool)
    keep[order[1:][ordered[1:] == ordered[:-1]]] = False
    bounds = np.cumsum([len(part) for part in of_file])[:-1]
    kept = [_apply(*arguments) for arguments in zip(extracted, of_file, np.split(keep, bounds), strict=True)]
    return kept, int((~keep).sum())


def _apply(extracted: ExtractedFile, keys: np.ndarray, keep: np.ndarray) -> ExtractedFile:
    if keep.all():
        return extracted
    path = extracted.path.with_suffix(".keep.npy")
    with files.atomic(path) as stream:
        np.save(stream, keep)
    documents, sizes = extracted.documents.copy(), extracted.bytes.copy()
    blocks, splits = np.repeat(np.arange(len(documents)), extracted.block_sizes)[~keep], keys["split"][~keep]
    np.subtract.at(documents, (blocks, splits), 1)
    np.subtract.at(sizes, (blocks, splits), keys["bytes"][~keep])
    return ExtractedFile(extracted.path, documents, sizes, extracted.block_sizes, path)

"""The collect task: reads some parts of the corpus, cleans their documents, and keeps them in the work folder.

Everything after it reads from there: no source is opened, cleaned or cut into sentences twice. One Arrow file a task; a record
batch is a block of documents:

    name: string    text: large_string    split: uint8 (its place in SPLITS)    pieces: list<int32> (sentencex: where they start)
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files
from pipeline.config import Corpus
from pipeline.dataset import SPLITS
from preprocess import documents, sentences
from preprocess.leaves import LeavesTable
from preprocess.sources import Part
from preprocess.texts import Texts

HASH_BYTES = 16


@dataclass(frozen=True)
class Job(LeavesTable):
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

    @property
    def hashes(self) -> Path:
        """[D, 16] a hash of each document's text, where duplicates are looked for."""
        return self.folder / f"{self.name}.hashes.npy"


def make(job: Job) -> None:
    """Collects the documents of a job's parts; then writes `job.done`."""
    counts: Counter[str] = Counter()
    batches: list[dict[str, list[int]]] = []
    hashes = []
    with files.atomic(job.path) as stream, pa.ipc.new_file(stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for texts in documents.read_all(job.parts, job.corpus, job.spelled_eos, counts):
            splits = split_numbers(texts, job.given, job.corpus)
            writer.write_batch(_batch(texts, splits, job.corpus))
            batches.append(_sizes(splits, np.diff(texts.ends, prepend=0)))
            if job.corpus.duplicates == "skip":
                hashes.append(_hashes(texts))
    if job.corpus.duplicates == "skip":
        with files.atomic(job.hashes) as stream:
            np.save(stream, np.concatenate(hashes or [np.empty((0, HASH_BYTES), np.uint8)]))
    job.finish({"batches": batches, "counts": dict(+counts)})


def split_numbers(texts: Texts, given: str, rules: Corpus) -> np.ndarray:
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


def read(path: Path, first: int, split: int, kept: np.ndarray | None = None) -> Iterator[tuple[Texts, np.ndarray | None]]:
    """The documents of a split (its place in SPLITS) in a collected file, block by block from batch `first` on.

    Args:
        kept: bool for each document from that batch on, of whatever split: those that are no duplicates; None: all.

    Yields (documents, where their sentence pieces start, or None where that is quickly found again); blocks may be empty.
    """
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for number in range(first, file.num_record_batches):
            batch = file.get_batch(number)
            chosen = split_column(batch) == split
            if kept is not None:
                chosen, kept = chosen & kept[: len(chosen)], kept[len(chosen) :]
            yield _texts(batch if chosen.all() else batch.filter(pa.array(chosen)))


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """All blocks of a collected file."""
    with pa.memory_map(str(path)) as stream, pa.ipc.open_file(stream) as file:
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def split_column(batch: pa.RecordBatch) -> np.ndarray:
    """[D] uint8: the split of each document of a block."""
    column = batch.column("split")
    # Not to_numpy: that imports pandas, for which the process that plans would make everybody wait.
    return np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset : column.offset + len(column)]


def lengths(batch: pa.RecordBatch) -> np.ndarray:
    """[D] bytes of each document of a block."""
    return pc.binary_length(batch.column("text")).to_numpy()


_SCHEMA = pa.schema({"name": pa.string(), "text": pa.large_string(), "split": pa.uint8(), "pieces": pa.list_(pa.int32())})


def _batch(texts: Texts, splits: np.ndarray, rules: Corpus) -> pa.RecordBatch:
    offsets = np.concatenate([np.zeros(1, np.int64), texts.ends])
    text = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(texts.data)))
    if rules.sentences == "sentencex":
        starts = sentences.piece_starts(texts, rules.sentences, rules.language)
        bounds = np.searchsorted(starts, offsets)
        relative = starts - np.repeat(texts.starts, np.diff(bounds))
        pieces = pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(relative.astype(np.int32)))
    else:
        pieces = pa.nulls(len(texts), _SCHEMA.field("pieces").type)
    return pa.record_batch([texts.names, text, pa.array(splits), pieces], schema=_SCHEMA)


def _texts(batch: pa.RecordBatch) -> tuple[Texts, np.ndarray | None]:
    text, lists = batch.column("text"), batch.column("pieces")
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    texts = Texts(batch.column("name"), data, offsets[1:] - offsets[0])
    if lists.null_count:
        return texts, None
    return texts, lists.flatten().to_numpy() + np.repeat(texts.starts, lists.value_lengths().to_numpy())


def _sizes(splits: np.ndarray, lengths: np.ndarray) -> dict[str, list[int]]:
    """Documents and bytes of each split in a batch."""
    return {
        "documents": np.bincount(splits, minlength=len(SPLITS)).tolist(),
        "bytes": [int(lengths[splits == number].sum()) for number in range(len(SPLITS))],
    }


def _hashes(texts: Texts) -> np.ndarray:
    data, bounds = texts.data.data, [0, *texts.ends.tolist()]
    made = b"".join(blake2b(data[start:end], digest_size=HASH_BYTES).digest() for start, end in pairwise(bounds))
    return np.frombuffer(made, np.uint8).reshape(-1, HASH_BYTES)


def result(job: Job) -> dict[str, Any]:
    """What `make` wrote last."""
    values: dict[str, Any] = files.read_json(job.done)
    return values

"""The shard task: a pure function of the settings, the plan's entry and the tokenizer.

Both views are written from the same blocks of ids as they come, so they hold the same ids in the same order, and memory is
bounded by a block of documents, however large the shard.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from packlm import dataset
from packlm.base import files
from packlm.config import Corpus
from packlm.text import tokenizer
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoded, Encoder, encode_documents

from ..report import Measures
from . import plan
from .rows import RowCutter


@dataclass(frozen=True)
class ShardTask:
    """A shard to make, and all that making it takes; goes to another process as it is."""

    task: plan.ShardPlan
    corpus: Corpus
    rows: Literal["stream", "document"]
    length: int
    folder: Path
    """The dataset's folder, which has the tokenizer already."""
    done: Path
    """The file that says what came out, written last: the shard is complete once it is there."""

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def size(self) -> int:
        return self.task.size

    @property
    def measures(self) -> Path:
        """Lengths and frequencies of the shard."""
        return self.done.with_suffix(".npz")

    def file(self, view: dataset.View) -> str:
        """The shard's file of a view, relative to the dataset's folder."""
        return dataset.shard_name(view, self.task.split, self.task.index, self.task.count)

    def writer(self, view: dataset.View, like: dataset.ColumnTypes) -> dataset.ShardWriter:
        return dataset.ShardWriter(self.folder / self.file(view), view, like)


@dataclass
class Statistics:
    """What is in a shard."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    words: int = 0
    bytes: int = 0
    unknown: int = 0
    overlong: int = 0
    longest_sentence: int = 0

    def add(self, made: Encoded, encoder: Encoder) -> None:
        """Counts some documents."""
        self.documents += made.num_documents
        self.sentences += len(made.ends)
        self.tokens += len(made.ids)
        self.words += made.num_words
        self.bytes += made.num_bytes
        self.unknown += int((made.ids == encoder.unk).sum()) if encoder.unk is not None else 0
        self.overlong += made.overlong
        self.longest_sentence = max(self.longest_sentence, int(np.diff(made.ends, prepend=0).max(initial=0)))


def make(job: ShardTask) -> None:
    """Writes the shard of both views, then `job.done`: what is in it, digest of the ids, file names, rows and digests of the files."""
    encoder = _encoder(job.folder, files.sha256(job.folder / tokenizer.NAME))
    like = dataset.ColumnTypes(encoder.vocab_size, job.length)
    statistics, content = Statistics(), hashlib.sha256()
    rows, measures = RowCutter(job.rows, like, encoder.eos), Measures.none(encoder.vocab_size)
    with job.writer("fixed", like) as fixed, job.writer("sentences", like) as sentences:
        for texts, pieces in plan.read(job.task):
            made = encode_documents(texts, job.corpus, encoder, pieces)
            sentences.write(dataset.sentences_table(made.ids, made.ends, _columns(texts, made), like))
            fixed.write(rows.add(made.ids, made.document_starts))
            content.update(np.ascontiguousarray(made.ids, "<u4").data)
            statistics.add(made, encoder)
            lengths = np.diff(made.ends, prepend=0), np.diff(made.document_starts, append=len(made.ids))
            measures += Measures.of(made.ids, *lengths, encoder.vocab_size)
        fixed.write(rows.rest())
    shards = {writer: dataset.Shard(writer.rows, statistics.tokens, files.sha256(writer.path)) for writer in (fixed, sentences)}
    written = {writer.view: {job.file(writer.view): asdict(shard)} for writer, shard in shards.items()}
    measures.save(job.measures)
    about = {"statistics": asdict(statistics), "ids": content.hexdigest(), "files": written, "measures": files.sha256(job.measures)}
    files.write_json(job.done, about)


@lru_cache(maxsize=1)
def _encoder(folder: Path, digest: str) -> Encoder:
    """The encoder of a folder, kept for the next shard with all it remembers, as long as the tokenizer has this digest."""
    return Encoder.load(folder)


def finished(job: ShardTask) -> bool:
    """Whether the shard was made before and its files are still as they were."""
    if not job.done.exists():
        return False
    made = result(job)
    listed = {job.folder / name: shard["sha256"] for view in made["files"].values() for name, shard in view.items()}
    listed[job.measures] = made["measures"]
    return all(path.is_file() and files.sha256(path) == digest for path, digest in listed.items())


def result(job: ShardTask) -> dict[str, Any]:
    """What `make` wrote last."""
    values: dict[str, Any] = files.read_json(job.done)
    return values


def _columns(texts: DocumentBlock, made: Encoded) -> dict[str, Any]:
    return {
        "document": texts.names.take(pa.array(made.documents)), "position": made.positions, "words": made.words, "bytes": made.bytes,
        "joined": made.joined, "lead": made.leads, "gap": made.gaps,
    }  # fmt: skip

"""Makes the shards: a task encodes the documents of one shard, and writes it in both views.

The bytes depend on the settings, the documents and the tokenizer alone. Both views are written from the same blocks of ids, so they hold
the same ids in the same order, and memory is bounded by a block of documents, however large the shard.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from packlm import dataset
from packlm.base import completion, files
from packlm.config import Corpus
from packlm.text import tokenizer
from packlm.text.document_block import DocumentBlock
from packlm.text.document_encoding import EncodedDocuments, encode_documents
from packlm.text.encoder import Encoder

from ..report import Measures
from .plan import ShardPlan
from .rows import RowCutter
from .task import Task


@dataclass(frozen=True)
class ShardTask(Task):
    """Makes a shard."""

    documents: ShardPlan
    corpus: Corpus
    rows: Literal["stream", "document"]
    length: int
    dataset_folder: Path
    """It has the tokenizer already."""
    folder: Path
    """Of records and measures."""

    @property
    def name(self) -> str:
        return self.documents.name

    @property
    def size(self) -> int:
        return self.documents.size

    @property
    def measures(self) -> Path:
        """Lengths and frequencies of the shard, for the report."""
        return self.folder / f"{self.name}.npz"

    def file(self, view: dataset.View) -> str:
        """The shard's file of a view, relative to the dataset's folder."""
        return dataset.shard_name(view, self.documents.split, self.documents.index, self.documents.count)


@dataclass(frozen=True)
class MadeShard:
    """A completed shard."""

    split: str
    statistics: dict[str, int]
    """See `Statistics`."""
    ids_digest: str
    """SHA-256 of its ids as little-endian uint32."""
    files: dict[dataset.View, tuple[str, dataset.Shard]]
    """The file name and the manifest's entry for each view."""
    measures: Path

    @staticmethod
    def of(task: ShardTask) -> "MadeShard":
        """Reads the record of a completed task."""
        details = task.details()
        listed: dict[dataset.View, tuple[str, dataset.Shard]] = {}
        for view in dataset.VIEWS:
            digest = completion.output_digest(task.record, task.dataset_folder / task.file(view))
            listed[view] = task.file(view), dataset.Shard(details["rows"][view], details["statistics"]["tokens"], digest)
        return MadeShard(task.documents.split, details["statistics"], details["ids"], listed, task.measures)


@dataclass
class Statistics:
    """The numbers of `dataset.Split`, of a shard."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    words: int = 0
    bytes: int = 0
    unknown: int = 0
    overlong: int = 0
    longest_sentence: int = 0

    def add(self, encoded: EncodedDocuments, encoder: Encoder) -> None:
        """Counts a block of documents."""
        self.documents += encoded.num_documents
        self.sentences += len(encoded.ends)
        self.tokens += len(encoded.ids)
        self.words += encoded.num_words
        self.bytes += encoded.num_bytes
        self.unknown += int((encoded.ids == encoder.unk).sum()) if encoder.unk is not None else 0
        self.overlong += encoded.overlong
        self.longest_sentence = max(self.longest_sentence, int(np.diff(encoded.ends, prepend=0).max(initial=0)))


def make(task: ShardTask) -> None:
    """Runs a task. Details in its record: `rows` of each view, `statistics`, and the SHA-256 of all `ids`."""
    encoder = _load_encoder(task.dataset_folder, files.sha256(task.dataset_folder / tokenizer.NAME))
    types = dataset.ColumnTypes(encoder.vocab_size, task.length)
    statistics, ids_digest = Statistics(), hashlib.sha256()
    rows, measures = RowCutter(task.rows, types, encoder.eos), Measures.none(encoder.vocab_size)
    writers = [dataset.ShardWriter(task.dataset_folder / task.file(view), view, types) for view in dataset.VIEWS]
    with writers[0] as fixed, writers[1] as sentences:
        for texts, pieces in task.documents.read():
            encoded = encode_documents(texts, task.corpus, encoder, pieces)
            sentences.write(dataset.sentences_table(encoded.ids, encoded.ends, _columns(texts, encoded), types))
            fixed.write(rows.add(encoded.ids, encoded.document_starts))
            ids_digest.update(np.ascontiguousarray(encoded.ids, "<u4").data)
            statistics.add(encoded, encoder)
            lengths = np.diff(encoded.ends, prepend=0), np.diff(encoded.document_starts, append=len(encoded.ids))
            measures += Measures.of(encoded.ids, *lengths, encoder.vocab_size)
        fixed.write(rows.rest())
    measures.save(task.measures)
    outputs = [*(writer.path for writer in writers), task.measures]
    num_rows = {writer.view: writer.rows for writer in writers}
    details = {"rows": num_rows, "statistics": asdict(statistics), "ids": ids_digest.hexdigest()}
    completion.write(task.record, task.inputs(), outputs, details)


@lru_cache(maxsize=1)
def _load_encoder(folder: Path, tokenizer_digest: str) -> Encoder:
    """The encoder of a dataset's folder; kept, with its cache, for the next shard, unless the tokenizer is another then."""
    return Encoder.load(folder, tokenizer_digest)


def _columns(texts: DocumentBlock, encoded: EncodedDocuments) -> dict[str, Any]:
    return {
        "document": texts.names.take(pa.array(encoded.documents)), "position": encoded.positions, "words": encoded.words,
        "bytes": encoded.bytes, "joined": encoded.joined, "lead": encoded.leads, "gap": encoded.gaps,
    }  # fmt: skip

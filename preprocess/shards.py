"""The shard task: a pure function of the settings, the plan's entry and the tokenizer.

The sentences view is written from the text, the fixed view from the sentences view just written: so both hold the same ids in
the same order, and memory is bounded by a block of documents, however large the shard.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import dataset, files
from pipeline.config import Corpus
from preprocess import plan
from preprocess.documents import Document
from preprocess.encoding import Encoder, encode_documents

_BLOCK_CHARACTERS = 1 << 21
_BATCH_ROWS = 1 << 14


@dataclass(frozen=True)
class Job:
    """A shard to make, and all that making it takes; goes to another process as it is."""

    task: plan.Task
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


@dataclass
class Statistics:
    """What is in a shard."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    words: int = 0
    bytes: int = 0
    unknown: int = 0
    longest_sentence: int = 0


def make(job: Job) -> None:
    """Writes the shard of both views, then `job.done`: statistics, digest of the ids, file names, rows and digests of the files."""
    encoder = Encoder.load(job.folder)
    statistics, content = Statistics(), hashlib.sha256()
    written = {}
    for view in reversed(dataset.VIEWS):
        name = dataset.shard_name(view, job.task.split, job.task.index, job.task.count)
        if view == "sentences":
            tables = _sentences(job, encoder, statistics, content)
            source = job.folder / name
        else:
            tables = _fixed(source, job, encoder)
        rows, digest = dataset.write_shard(job.folder / name, view, tables, (encoder.vocab_size, job.length))
        written[view] = {name: asdict(dataset.Shard(rows, statistics.tokens, digest))}
    files.write_json(job.done, {"statistics": asdict(statistics), "ids": content.hexdigest(), "files": written})


def finished(job: Job) -> dict[str, Any] | None:
    """What `make` wrote, if the shard was made before and its files are still as they were; None otherwise."""
    if not job.done.exists():
        return None
    made: dict[str, Any] = files.read_json(job.done)
    for view in made["files"].values():
        for name, shard in view.items():
            path = job.folder / name
            if not path.is_file() or files.sha256(path) != shard["sha256"]:
                return None
    return made


def _sentences(job: Job, encoder: Encoder, statistics: Statistics, content: "hashlib._Hash") -> Iterator[pa.Table]:
    """Rows of the sentences view; adds to `statistics` and to the digest of the ids on the way."""
    for block in _blocks(plan.read(job.task, job.corpus, encoder.spelled_eos)):
        made = encode_documents(((document.name, document.text) for document in block), job.corpus, encoder)
        statistics.documents += made.num_documents
        statistics.sentences += len(made.ends)
        statistics.tokens += len(made.ids)
        statistics.words += made.num_words
        statistics.bytes += made.num_bytes
        statistics.unknown += int((made.ids == encoder.unk).sum()) if encoder.unk is not None else 0
        statistics.longest_sentence = max(statistics.longest_sentence, int(np.diff(made.ends, prepend=0).max()))
        content.update(np.ascontiguousarray(made.ids, "<u4").tobytes())
        words, num_bytes = made.sentence_words, made.sentence_bytes
        yield dataset.sentences_table(
            made.ids, made.ends, made.documents, made.positions, words, num_bytes, made.leads, made.gaps, encoder.vocab_size
        )


def _blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Runs of documents of about `_BLOCK_CHARACTERS` together, at least one each."""
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _fixed(sentences: Path, job: Job, encoder: Encoder) -> Iterator[pa.Table]:
    """Rows of the fixed view: runs of ids cut every `length` targets; a run is the whole shard, or one document of it.

    What does not fill a row waits for the next batch, unless its run ends there.
    """
    before = encoder.eos  # of the first target of a run: the shard's start symbol, or the end of the last document
    ids, opens = np.empty(0, np.int64), np.empty(0, bool)
    with pq.ParquetFile(sentences) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["ids", "position"]):
            lists = batch.column("ids")
            more = lists.flatten().to_numpy().astype(np.int64)
            first = np.zeros(len(more), bool)
            starts = np.cumsum(lists.value_lengths().to_numpy()[:-1])
            first[np.concatenate([[0], starts])[batch.column("position").to_numpy() == 0]] = True
            ids, opens = np.concatenate([ids, more]), np.concatenate([opens, first])
            cuts = np.flatnonzero(opens) if job.rows == "document" else np.empty(0, np.int64)
            bounds = [0, *cuts[cuts > 0].tolist(), len(ids)]
            tables = []
            for start, end in pairwise(bounds[:-1]):
                tables.append(dataset.fixed_table(ids[start:end], opens[start:end], encoder.vocab_size, job.length, before))
                before = encoder.eos
            start = bounds[-2]
            whole = start + (len(ids) - start) // job.length * job.length
            if whole > start:
                tables.append(dataset.fixed_table(ids[start:whole], opens[start:whole], encoder.vocab_size, job.length, before))
                before = int(ids[whole - 1])
            ids, opens = ids[whole:], opens[whole:]
            if tables:
                yield pa.concat_tables(tables)
    if len(ids):
        yield dataset.fixed_table(ids, opens, encoder.vocab_size, job.length, before)

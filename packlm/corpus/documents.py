"""Documents: reads the parts of a corpus as blocks of cleaned, named documents.

A file that is a document has the name of its source; a document that begins at line 17 (in CSV and Parquet, row 17) is `NAME:17`.
Documents, names and counts do not depend on how a file is cut into parts and blocks. Memory: a few blocks, or the longest document several
times.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import bad_files, discovery, formats, streams
from packlm.corpus.cleaning import clean
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Part, Source
from packlm.corpus.transcoding import NotEncoded
from packlm.text.document_block import DocumentBlock


def read_all(parts: Iterable[Part], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of several parts, in order, cleaned by `rules`, in blocks of about `streams.BLOCK` bytes, none of them empty.

    Args:
        spelled_eos: regular expression of the words that the tokenizer would take for `<eos>` (`Encoder.spelled_eos`).
        counts: reason -> number of things skipped, replaced or dropped; updated.

    Raises:
        PacklmError: naming file and position: bad text and records under the rules "error"; a document longer than `max_document_bytes`;
            a file that is damaged or cannot be read.
    """
    pending: list[DocumentBlock] = []
    size = 0
    for raw in _raw(parts, rules, counts):
        for block in _clean(raw, rules, spelled_eos, counts):
            pending.append(block)
            size += len(block.data)
            if 2 * size >= streams.BLOCK:
                yield _concatenate(pending)
                pending, size = [], 0
    if pending:
        yield _concatenate(pending)


def _raw(parts: Iterable[Part], rules: Corpus, counts: Counter[str]) -> Iterator[list[RawDocuments]]:
    """The documents of several parts before cleaning; of files that are a document each, those that are cleaned together."""
    files: list[RawDocuments] = []
    size = 0
    for raw in (raw for part in parts for raw in formats.read(part, rules, counts)):
        is_small = not raw.numbered and 2 * len(raw.data) < streams.BLOCK
        if files and not (is_small and 2 * (size + len(raw.data)) < streams.BLOCK):
            yield files
            files, size = [], 0
        if not is_small:
            yield [raw]
        else:
            files.append(raw)
            size += len(raw.data)
    if files:
        yield files


def _clean(raw: list[RawDocuments], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """Cleans documents together, which takes a fraction of the time; one by one if that fails, for the error that names the file."""
    blocks = None
    if len(raw) > 1:
        changes = Counter[str]()
        with suppress(PacklmError):
            blocks = [clean(RawDocuments.joined(raw), rules, spelled_eos, changes)]
            counts.update(changes)
    for block in blocks or (clean(documents, rules, spelled_eos, counts) for documents in raw):
        if len(block):
            yield block


def read_locations(locations: Sequence[str], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents at some locations (`discovery.find`), as `read_all`, without a dataset; of hub datasets the split `test` by default."""
    with tempfile.TemporaryDirectory() as downloads:
        sources = discovery.find(locations, rules, "test", Path(downloads))
        discovery.check_unique({"text": sources}, rules)
        counts.update(bad_files.encoding_counts(sources, rules))
        try:
            yield from read_all((formats.whole(source, rules) for source in sources), rules, spelled_eos, counts)
        except NotEncoded as error:
            raise bad_files.all_of(error, sources) from None


def read_texts(texts: Iterable[str], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of texts in memory, as `read_all`: exactly those that a text file in UTF-8 with each text would have."""
    sources = (Source(f"text {number}", data=text.encode()) for number, text in enumerate(texts, 1))
    yield from read_all((formats.whole(source, rules) for source in sources), rules, spelled_eos, counts)


def _concatenate(blocks: list[DocumentBlock]) -> DocumentBlock:
    if len(blocks) == 1:
        return blocks[0]
    shifts = np.cumsum([0, *(len(block.data) for block in blocks[:-1])])
    ends = np.concatenate([block.ends + shift for block, shift in zip(blocks, shifts, strict=True)])
    return DocumentBlock(pa.concat_arrays([block.names for block in blocks]), np.concatenate([block.data for block in blocks]), ends)

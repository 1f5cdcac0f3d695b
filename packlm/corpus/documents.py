"""Documents: reads the parts of a corpus as blocks of cleaned, named documents.

A file that is a document has the name of its source; a document that begins at line 17 (in CSV and Parquet, row 17) is `NAME:17`.
Documents, names and counts do not depend on how a file is cut into parts and blocks. Memory: a few blocks, or the longest document several
times.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from packlm.config import Corpus
from packlm.corpus import discovery, formats, streams
from packlm.corpus.cleaning import clean
from packlm.corpus.sources import Part
from packlm.text.document_block import DocumentBlock


def read(part: Part, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of a part, in order, cleaned by `rules`, in blocks of about `streams.BLOCK` bytes, none of them empty.

    Args:
        spelled_eos: regular expression of the words that the tokenizer would take for `<eos>` (`Encoder.spelled_eos`).
        counts: reason -> number of things skipped, replaced or dropped; updated.

    Raises:
        PacklmError: naming file and position: bad text and records under the rules "error"; a document longer than `max_document_bytes`;
            a file that is damaged or cannot be read.
    """
    for raw in formats.read(part, rules, counts):
        block = clean(raw, rules, spelled_eos, counts)
        if len(block):
            yield block


def read_all(parts: Iterable[Part], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of several parts, as `read`; many small files share a block."""
    pending: list[DocumentBlock] = []
    size = 0
    for part in parts:
        for block in read(part, rules, spelled_eos, counts):
            pending.append(block)
            size += len(block.data)
            if 2 * size >= streams.BLOCK:
                yield _concatenate(pending)
                pending, size = [], 0
    if pending:
        yield _concatenate(pending)


def read_locations(locations: Sequence[str], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents at some locations (`discovery.find`), as `read`, without a dataset; of hub datasets the split `test` by default."""
    with tempfile.TemporaryDirectory() as downloads:
        sources = discovery.find(locations, rules, "test", Path(downloads))
        discovery.check_unique({"text": sources})
        yield from read_all((formats.whole(source, rules) for source in sources), rules, spelled_eos, counts)


def _concatenate(blocks: list[DocumentBlock]) -> DocumentBlock:
    if len(blocks) == 1:
        return blocks[0]
    shifts = np.cumsum([0, *(len(block.data) for block in blocks[:-1])])
    ends = np.concatenate([block.ends + shift for block, shift in zip(blocks, shifts, strict=True)])
    return DocumentBlock(pa.concat_arrays([block.names for block in blocks]), np.concatenate([block.data for block in blocks]), ends)

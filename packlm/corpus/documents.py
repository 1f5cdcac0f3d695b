"""Documents: the parts of a corpus become blocks of cleaned documents, under their names.

A file that is a document has the name of its source; one that begins at line 17 is `NAME:17`, in text as in JSONL, and the one in
row 17 of CSV or Parquet too. Documents, names and counts are those of the file, however it was cut into parts and blocks. Memory: a
few blocks, or the longest document several times.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from packlm.config import Corpus
from packlm.corpus import records, sources, streams
from packlm.corpus.cleaning import RawDocuments, clean
from packlm.corpus.sources import Part, Source
from packlm.text.document_block import DocumentBlock
from packlm.text.whitespace import blank


def read(part: Part, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of a part, in order, cleaned as `rules` say, in blocks of about `streams.BLOCK` bytes, none empty.

    Args:
        spelled_eos: the words that the tokenizer would take for the special token (`Encoder.spelled_eos`).
        counts: reason -> how often something was skipped, replaced or dropped; added to.

    Raises:
        PacklmError: naming file and place: bad text and records, where the rules say to stop; a document longer than
            `max_document_bytes`; a file that is damaged or cannot be read.
    """
    for found in _found(part, rules, counts):
        texts = clean(found, rules, spelled_eos, counts)
        if len(texts):
            yield texts


def read_all(parts: Iterable[Part], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents of several parts, as `read` has them; many small files share a block."""
    waiting: list[DocumentBlock] = []
    size = 0
    for part in parts:
        for texts in read(part, rules, spelled_eos, counts):
            waiting.append(texts)
            size += len(texts.data)
            if 2 * size >= streams.BLOCK:
                yield _joined(waiting)
                waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def texts(places: Sequence[str], rules: Corpus, spelled_eos: str, counts: Counter[str]) -> Iterator[DocumentBlock]:
    """The documents at `places`, as `preprocess` reads them, for whoever has no dataset; of the hub the split `test`, unless named."""
    with tempfile.TemporaryDirectory() as spool:
        found = sources.find(places, rules, "test", Path(spool))
        sources.refuse_repeats({"text": found})
        yield from read_all((sources.whole(source, rules) for source in found), rules, spelled_eos, counts)


def _joined(blocks: list[DocumentBlock]) -> DocumentBlock:
    if len(blocks) == 1:
        return blocks[0]
    shifts = np.cumsum([0, *(len(block.data) for block in blocks[:-1])])
    ends = np.concatenate([block.ends + shift for block, shift in zip(blocks, shifts, strict=True)])
    return DocumentBlock(pa.concat_arrays([block.names for block in blocks]), np.concatenate([block.data for block in blocks]), ends)


def _found(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    kind = part.source.kind
    if kind != "text":
        return {"jsonl": records.jsonl, "csv": records.rows, "parquet": records.parquet}[kind](part, rules, counts)
    if rules.document == "file":
        return _file(part, rules, counts)
    if rules.document == "line":
        return _lines(part, rules, counts)
    return _runs(part, rules, counts)


def _file(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    offset, blocks = streams.utf8(part, rules, counts)
    pieces, size = [], 0
    for block in blocks:
        pieces.append(block)
        size += len(block)
        if size > rules.max_document_bytes:
            raise streams.too_long(part.source, "the whole file", rules)
    offsets = None if offset is None else np.array([offset])
    data = np.frombuffer(b"".join(pieces), np.uint8)
    del pieces  # a long document is there once while others look at it
    yield RawDocuments(part.source, data, np.array([len(data)]), np.array([1]), offsets, numbered=False)


def _lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    for block in streams.lines(part, rules, counts):
        numbers = np.arange(block.number, block.number + len(block.ends))
        offsets = None if block.offset is None else block.offset + block.starts
        yield RawDocuments(part.source, np.frombuffer(block.data, np.uint8), block.ends, numbers, offsets)


@dataclass
class _Open:
    """A document that the lines read so far have begun and not ended."""

    number: int
    offset: int
    pieces: list[np.ndarray] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


def _runs(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """Documents of several lines each: a document ends where the next one begins, or with the part."""
    source = part.source
    open_: _Open | None = None
    blank_before = True
    for block in streams.lines(part, rules, counts):
        data, starts = np.frombuffer(block.data, np.uint8), block.starts
        if rules.document == "paragraph":
            kept = ~blank(data, starts, block.ends)
            heads = kept & np.concatenate([[blank_before], ~kept[:-1]])
            blank_before = not kept[-1]
            sizes = np.diff(block.ends, prepend=0) * kept
            data = data if kept.all() else data[np.repeat(kept, np.diff(block.ends, prepend=0))]
        else:
            heads = _matching(block, rules.document_pattern)
            heads[0] |= open_ is None
            sizes = np.diff(block.ends, prepend=0)
        begun = np.flatnonzero(heads)
        bounds = np.concatenate([[0], np.cumsum(sizes)])[begun]
        offset = 0 if block.offset is None else block.offset
        if not len(begun):
            if open_ is not None:
                open_.pieces.append(data)
        else:
            before = open_ or _Open(0, 0)
            before.pieces.append(data[: bounds[0]])
            ends = np.concatenate([[before.size], before.size + bounds[1:] - bounds[0]])
            numbers = np.concatenate([[before.number], block.number + begun[:-1]])
            offsets = np.concatenate([[before.offset], offset + starts[begun[:-1]]])
            ended = np.concatenate([*before.pieces, data[bounds[0] : bounds[-1]]])
            _refuse_long(source, np.diff(ends, prepend=0), numbers, rules)
            here = slice(0 if open_ is not None else 1, None)
            if len(ends[here]):
                yield RawDocuments(source, ended, ends[here], numbers[here], None if block.offset is None else offsets[here])
            open_ = _Open(block.number + int(begun[-1]), offset + int(starts[begun[-1]]), [data[bounds[-1] :]])
        if open_ is not None:
            _refuse_long(source, np.array([open_.size]), np.array([open_.number]), rules)
            known = block.offset is not None
    if open_ is not None:
        place = np.array([open_.offset]) if known else None
        data, number, open_ = np.concatenate(open_.pieces), open_.number, None
        yield RawDocuments(source, data, np.array([len(data)]), np.array([number]), place)


def _refuse_long(source: Source, sizes: np.ndarray, numbers: np.ndarray, rules: Corpus) -> None:
    if len(longer := np.flatnonzero(sizes > rules.max_document_bytes)):
        raise streams.too_long(source, f"line {numbers[longer[0]]}", rules)


def _matching(block: streams.Lines, pattern: str) -> np.ndarray:
    """[L] bool: the lines that a pattern matches in whole, the white space around it aside."""
    matches = re.compile(pattern).fullmatch
    texts = block.data.decode(errors="replace").split("\n")[: len(block.ends)]
    return np.fromiter((matches(text.strip()) is not None for text in texts), bool, len(texts))

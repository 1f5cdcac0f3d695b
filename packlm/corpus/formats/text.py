"""Plain text: a document is a file, a line, a paragraph, or what begins at a line that a pattern matches (`corpus.document`)."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise

import numpy as np

from packlm.config import Corpus
from packlm.corpus import streams
from packlm.corpus.format import Format
from packlm.corpus.line_cuts import DocumentPattern, line_cuts
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Part, Source
from packlm.text.whitespace import blank


class Text(Format):
    """Plain text files."""

    def is_numbered(self, rules: Corpus) -> bool:
        return rules.document != "file"

    def cuts(self, source: Source, rules: Corpus, part_bytes: int) -> list[int]:
        return [] if rules.document == "file" else line_cuts(source, rules.document, rules, part_bytes)

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        if rules.document == "file":
            return _file(part, rules, counts)
        return _lines(part, rules, counts) if rules.document == "line" else _line_runs(part, rules, counts)


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
    del pieces  # holds a long document a second time
    yield RawDocuments(part.source, data, np.array([len(data)]), np.array([1]), offsets, is_text=True, numbered=False)


def _lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    for block in streams.lines(part, rules, counts):
        numbers = np.arange(block.number, block.number + len(block.ends))
        offsets = None if block.offset is None else block.offset + block.starts
        yield RawDocuments(part.source, np.frombuffer(block.data, np.uint8), block.ends, numbers, offsets, is_text=True)


def _line_runs(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """Documents of several lines each: a document ends where the next one begins, or with the part."""
    source = part.source
    pieces: list[np.ndarray] = []  # text of the document that is still open, its line number, and its offset
    open_number, open_offset = 0, 0
    after_blank, pattern = True, DocumentPattern.of(rules.document_pattern)
    for block, following in _with_next(streams.lines(part, rules, counts)):
        data, starts, sizes = np.frombuffer(block.data, np.uint8), block.starts, np.diff(block.ends, prepend=0)
        filled = ~blank(data, starts, block.ends)
        are_after_blank = np.concatenate([[after_blank], ~filled[:-1]])
        after_blank = not filled[-1]
        if rules.document == "paragraph":
            begins = filled & are_after_blank
            if not filled.all():
                data, sizes = data[np.repeat(filled, sizes)], sizes * filled
        else:
            begins = _matching(block, pattern)
            if pattern.above:
                begins &= are_after_blank
            if pattern.below:
                is_before_blank = following is not None and not following.data[: following.ends[0]].decode(errors="replace").strip()
                begins &= np.append(~filled[1:], is_before_blank)
            begins[0] |= not pieces
        first_lines = np.flatnonzero(begins)
        if len(first_lines):
            bounds = np.concatenate([[0], np.cumsum(sizes)])[first_lines]
            offsets = (block.offset or 0) + starts[first_lines]
            ends = sum(map(len, pieces)) + bounds
            numbers = np.append(open_number, block.number + first_lines)
            _check_sizes(source, np.diff(ends, prepend=0), numbers, rules)
            complete = slice(0 if pieces else 1, -1)
            if len(numbers[complete]):
                text = np.concatenate([*pieces, data[: bounds[-1]]])
                known = None if block.offset is None else np.append(open_offset, offsets)[complete]
                yield RawDocuments(source, text, ends[complete.start :], numbers[complete], known, is_text=True)
            pieces, open_number, open_offset = [data[bounds[-1] :]], int(numbers[-1]), int(offsets[-1])
        elif pieces:
            pieces.append(data)
        if pieces:
            _check_sizes(source, np.array([sum(map(len, pieces))]), np.array([open_number]), rules)
            has_offset = block.offset is not None
    if pieces:
        data = np.concatenate(pieces)
        pieces.clear()  # holds a long document a second time
        offset = np.array([open_offset]) if has_offset else None
        yield RawDocuments(source, data, np.array([len(data)]), np.array([open_number]), offset, is_text=True)


def _check_sizes(source: Source, sizes: np.ndarray, numbers: np.ndarray, rules: Corpus) -> None:
    if len(too_long := np.flatnonzero(sizes > rules.max_document_bytes)):
        raise streams.too_long(source, f"line {numbers[too_long[0]]}", rules)


def _with_next(blocks: Iterator[streams.Lines]) -> Iterator[tuple[streams.Lines, streams.Lines | None]]:
    """Each block, and the one after it; None after the last."""
    for block, following in pairwise(chain(blocks, [None])):
        if block is not None:
            yield block, following


def _matching(block: streams.Lines, pattern: DocumentPattern) -> np.ndarray:
    """[L] bool: the lines that a pattern matches in full, without the whitespace around them."""
    lines = block.data.decode(errors="replace").split("\n")[: len(block.ends)]
    return np.fromiter((pattern.matches(line.strip()) is not None for line in lines), bool, len(lines))


FORMATS = {"text": Text()}

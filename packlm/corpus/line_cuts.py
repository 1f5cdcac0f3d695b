"""Cuts files made of lines where a document begins, without reading them whole."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Literal

from packlm.config import Corpus
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import as_text, cuts_at_line_feeds

_BLOCK = 1 << 22
_LINE_FEEDS = ("\n", r"\n")
_ASCII_SPACE = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"


@dataclass(frozen=True)
class DocumentPattern:
    """`corpus.document_pattern`: which lines begin a document."""

    matches: Callable[[str], re.Match[str] | None]
    """Matches a line without the whitespace around it."""
    above: bool
    """Whether the line before has to be blank."""
    below: bool
    """Whether the line after has to be blank; there has to be one."""

    @staticmethod
    def of(pattern: str) -> "DocumentPattern":
        """The pattern of the setting: a regular expression for a line, between line feeds where the lines around have to be blank."""
        line = re.sub(r"\A(\n|\\n)|(\n|\\n)\Z", "", pattern)
        return DocumentPattern(re.compile(line).fullmatch, pattern.startswith(_LINE_FEEDS), pattern.endswith(_LINE_FEEDS))


def line_cuts(source: Source, unit: Literal["line", "paragraph", "pattern"], rules: Corpus, part_bytes: int) -> list[int]:
    """For each multiple of `part_bytes`, the first byte from there on at which a document begins, each once.

    None for compressed files, and for encodings in which the byte 0A is not always a line feed.

    Args:
        unit: what a document is.
    """
    if source.compression or not cuts_at_line_feeds(source.encoding):
        return []
    cuts = [0]
    size = source.state()[0]
    with source.open() as stream:
        while (target := (cuts[-1] // part_bytes + 1) * part_bytes) < size:
            offset = _document_start(stream, source, target, unit, rules)
            if offset is None or offset >= size:
                break
            cuts.append(offset)
    return cuts[1:]


def _document_start(stream: BufferedIOBase, source: Source, target: int, unit: str, rules: Corpus) -> int | None:
    """The first byte at or after `target` at which a document begins; None where none does."""
    limit = rules.max_document_bytes + 1  # reading reports lines longer than a document may be
    if unit == "paragraph":
        offset = _seek_line_start(stream, target - 1, limit)
    else:
        stream.seek(target - 1)
        offset = target - 1 + _line_length(stream)
    if unit == "line":
        return offset
    if unit == "pattern":
        return _matching_line(stream, source, offset, target, rules, limit)
    while line := stream.readline(limit):
        offset += len(line)
        if not line.strip(_ASCII_SPACE):
            return offset
    return None


def _matching_line(stream: BufferedIOBase, source: Source, offset: int, target: int, rules: Corpus, limit: int) -> int | None:
    """The byte of the first line from `offset` on, where the stream is, that the pattern of documents matches; None for none."""
    pattern = DocumentPattern.of(rules.document_pattern)
    after_blank, candidate = False, None
    if pattern.above:
        _seek_line_start(stream, target - 1, limit)
        after_blank = not as_text(stream.readline(limit), source.encoding).strip()
        stream.seek(offset)
    while line := stream.readline(limit):
        text = as_text(line, source.encoding).strip()
        if candidate is not None and not text:
            return candidate
        candidate = offset if (after_blank or not pattern.above) and pattern.matches(text) else None
        if candidate is not None and not pattern.below:
            return candidate
        after_blank = not text
        offset += len(line)
    return None


def _line_length(stream: BufferedIOBase) -> int:
    """Reads up to and including the next line feed, or to the end; returns the number of bytes."""
    length = 0
    while line := stream.readline(_BLOCK):
        length += len(line)
        if line.endswith(b"\n"):
            break
    return length


def _seek_line_start(stream: BufferedIOBase, offset: int, limit: int) -> int:
    """Seeks to the start of the line that holds byte `offset`, at most about `limit` bytes back; returns the new offset."""
    start = offset
    while start > 0 and offset - start < limit:
        step = min(start, 1 << 12)
        stream.seek(start - step)
        line_feed = stream.read(step).rfind(b"\n")
        if line_feed >= 0:
            start += line_feed + 1 - step
            break
        start -= step
    stream.seek(start)
    return start

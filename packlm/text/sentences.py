"""Sentence boundaries, in bytes. Nothing is lost: the whitespace around sentences lies between their spans.

Shapes: B bytes, D documents, P pieces, S sentences.
"""

import logging
import re
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import numpy as np
from sentencex import get_sentence_boundaries, segment

from packlm.text.document_block import DocumentBlock
from packlm.text.whitespace import windows

log = logging.getLogger("packlm")

Rule = Literal["line", "sentencex", "none"]

_PART_BYTES = 1 << 16  # given to sentencex at a time, where blank lines allow

# A blank line between two non-whitespace characters, recognized by the bytes next to it (some others are missed).
_BLANK_LINE = re.compile(rb"(?<=[!-~\x8b-\x9e\xa1-\xa7\xaa-\xae\xb0-\xbf])\n\n(?=[!-~\xc3-\xdf\xe4-\xf4])")
# Blank lines that sentencex takes for text: of whitespace, of other line ends than LF and CR LF; and the paragraph separator.
_LINE_END, _BLANK = r"(?:\r\n|[\n\x85\u2028]|\r(?!\n))", r"[^\S\n\r\x85\u2028\u2029]*"
_PARAGRAPH_END = re.compile(rf"(?!\r?\n\r?\n){_LINE_END}{_BLANK}{_LINE_END}\s*|\u2029\s*")
_WIDE_SPACES = dict.fromkeys(
    map(ord, "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"), " "
)


class SentenceSpans(NamedTuple):
    """Spans of the sentences of a `DocumentBlock`, in order, without the whitespace around them; none is empty."""

    starts: np.ndarray
    """[S] int64: index of each sentence's first byte."""
    ends: np.ndarray
    """[S] int64: index after its last byte."""
    documents: np.ndarray
    """[S] int32: index of its document."""
    words: np.ndarray
    """[S] int32: whitespace-separated words that begin in the sentence; they add up to those of the document."""


def piece_starts(block: DocumentBlock, rule: Rule, language: str = "en") -> np.ndarray:
    """Starts of pieces that contain at most one sentence each: [P] int64 byte offsets, ascending.

    Args:
        rule: "line" splits after line feeds, "sentencex" with that library, "none" between documents only.
        language: ISO 639 code, for sentencex.
    """
    document_starts = block.starts[block.starts < block.ends]
    if rule == "line":
        begins = np.zeros(len(block.data), bool)
        np.equal(block.data[:-1], ord("\n"), out=begins[1:])
        begins[document_starts] = True
        return np.flatnonzero(begins)
    if rule == "sentencex":
        document_ends = block.ends[block.starts < block.ends]
        bounds = zip(document_starts.tolist(), document_ends.tolist(), strict=True)
        starts = [_sentencex(block.data[start:end], language) + start for start, end in bounds]
        return np.concatenate([np.empty(0, np.int64), *starts])
    return document_starts


def spans(block: DocumentBlock, pieces: np.ndarray) -> SentenceSpans:
    """The sentences of pieces that start at `pieces` (`piece_starts`); pieces of nothing but whitespace have none."""
    edges = block.word_edges()
    ends = np.append(pieces[1:], len(block.data))[: len(pieces)]
    # A byte with an odd number of edges up to it is inside a word, which began at the last of them.
    before_start = np.searchsorted(edges, pieces.astype(edges.dtype), "right")
    before_end = np.append(before_start, len(edges))[1 : len(pieces) + 1]
    before_end = before_end - ((before_end > 0) & (edges[before_end - 1] == ends)) if len(edges) else before_end
    inside_start, inside_end = before_start % 2 == 1, before_end % 2 == 1
    filled = inside_start | (before_start < before_end)
    pieces, ends, before_start, before_end, inside_start, inside_end = (
        array[filled] for array in (pieces, ends, before_start, before_end, inside_start, inside_end)
    )
    if not len(pieces):
        return SentenceSpans(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32))
    last_edge = len(edges) - 1
    starts = np.where(inside_start, pieces, edges[np.minimum(before_start, last_edge)])
    ends = np.where(inside_end, ends, edges[before_end - 1])
    documents = np.searchsorted(block.ends, starts, "right")
    # In `edges` only whitespace separates words; one that continues from the document before begins anew in its own.
    words_before = (before_start + 1) // 2 - (inside_start & (edges[before_start - 1] == starts))
    is_continued = inside_start & (edges[before_start - 1] != starts) & (block.starts[documents] == starts)
    words = (before_end + 1) // 2 - words_before + is_continued
    return SentenceSpans(starts.astype(np.int64), ends.astype(np.int64), documents.astype(np.int32), words.astype(np.int32))


def split(text: str, rule: Rule, language: str = "en") -> tuple[str, list[tuple[str, str]]]:
    """Splits one document into sentences, as text.

    Returns (lead, [(sentence, gap), ...]) with lead + all sentences and gaps == text. No sentence is empty or has whitespace at either end;
    lead and gaps are whitespace only.
    """
    block = DocumentBlock.of([("", text)])
    sentences = spans(block, piece_starts(block, rule, language))
    if not len(sentences.starts):
        return text, []
    bounds = [*np.stack([sentences.starts, sentences.ends], axis=1).reshape(-1).tolist(), len(block.data)]
    parts = [block.data[start:end].tobytes().decode() for start, end in pairwise([0, *bounds])]
    return parts[0], list(zip(parts[1::2], parts[2::2], strict=True))


def _sentencex(data: np.ndarray, language: str) -> np.ndarray:
    """Starts of the sentences of a document, by sentencex: int64 byte offsets, ascending from 0.

    It treats text between blank lines independently, so a long document is given to it in parts.
    """
    cuts = [0]
    for blank in _BLANK_LINE.finditer(data.data) if len(data) > _PART_BYTES else ():
        if blank.end() - cuts[-1] >= _PART_BYTES:
            cuts.append(blank.end())
    parts = []
    for start, end in pairwise([*cuts, len(data)]):
        text = str(data[start:end].data, "utf-8")
        starts = np.fromiter(_boundaries(text, language), np.int64)
        if not text.isascii():
            starts = _byte_offsets(starts, data[start:end])
        parts.append(starts + start)
    return np.concatenate(parts)


def _byte_offsets(characters: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The byte offsets of characters of UTF-8 text, given by their ascending indices."""
    offsets, before = [np.empty(0, np.int64)], 0
    for start, end in windows(data):
        begins = np.flatnonzero((data[start:end] & 0xC0) != 0x80)
        low, high = np.searchsorted(characters, [before, before + len(begins)])
        offsets.append(begins[characters[low:high] - before] + start)
        before += len(begins)
    return np.concatenate(offsets)


def _boundaries(text: str, language: str) -> list[int]:
    """Indices of the characters at which sentences start, ascending from 0; a blank line, of whatever whitespace, ends one."""
    ends = [match.end() for match in _PARAGRAPH_END.finditer(text)]
    bounds = pairwise([0, *(end for end in ends if end < len(text)), len(text)])
    return [start + boundary for start, end in bounds for boundary in _paragraph_boundaries(text[start:end], language)]


def _paragraph_boundaries(text: str, language: str) -> list[int]:
    """Indices of the characters at which sentences start, by sentencex as it is, ascending from 0."""
    try:
        return _unguarded_boundaries(text, language)
    except BaseException as error:
        # In some places the library, in Rust, takes all whitespace for one byte long and panics, which is no `Exception` in Python.
        if type(error).__name__ != "PanicException":
            raise
    return _unguarded_boundaries(text.translate(_WIDE_SPACES), language)


def _unguarded_boundaries(text: str, language: str) -> list[int]:
    segments = segment(language, text)
    starts = [0, *accumulate(map(len, segments))][:-1]
    # On some texts, characters are missing between the segments; where none are, segments cost half as much as boundaries.
    if sum(map(len, segments)) == len(text) and all(segments) and all(map(text.startswith, segments, starts)):
        return starts
    return sorted({0, *(boundary["start_index"] for boundary in get_sentence_boundaries(language, text))} - {len(text)})

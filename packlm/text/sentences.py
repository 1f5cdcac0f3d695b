"""Where sentences begin and end, in bytes. Nothing is lost: the white space around sentences lies between them.

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

_PART = 1 << 16  # bytes given to sentencex at a time, where blank lines allow

# A blank line between two characters that are no white space, told from the bytes beside it (some that could be are passed over).
_BLANK_LINE = re.compile(rb"(?<=[!-~\x8b-\x9e\xa1-\xa7\xaa-\xae\xb0-\xbf])\n\n(?=[!-~\xc3-\xdf\xe4-\xf4])")
_WIDE_SPACES = dict.fromkeys(
    map(ord, "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"), " "
)


class SentenceSpans(NamedTuple):
    """Sentences in some `DocumentBlock`, in order, without the white space around them; none is empty."""

    starts: np.ndarray
    """[S] int64: index of each sentence's first byte."""
    ends: np.ndarray
    """[S] int64: index after its last byte."""
    documents: np.ndarray
    """[S] int32: index of its document."""
    words: np.ndarray
    """[S] int32: white-space words of the document that begin in the sentence; they add up to those of the document."""


def piece_starts(texts: DocumentBlock, rule: Rule, language: str = "en") -> np.ndarray:
    """Where pieces start, of which each holds a sentence at most: [P] int64 byte offsets, rising.

    Args:
        rule: "line" cuts after line feeds, "sentencex" where that library says, "none" nowhere but between documents.
        language: ISO 639 code, for sentencex.
    """
    opens = texts.starts[texts.starts < texts.ends]
    if rule == "line":
        begins = np.zeros(len(texts.data), bool)
        np.equal(texts.data[:-1], ord("\n"), out=begins[1:])
        begins[opens] = True
        return np.flatnonzero(begins)
    if rule == "sentencex":
        closes = texts.ends[texts.starts < texts.ends]
        found = [_sentencex(texts.data[start:end], language) + start for start, end in zip(opens.tolist(), closes.tolist(), strict=True)]
        return np.concatenate([np.empty(0, np.int64), *found])
    return opens


def spans(texts: DocumentBlock, pieces: np.ndarray) -> SentenceSpans:
    """The sentences of pieces that start where `piece_starts` says; pieces of nothing but white space are none."""
    edges = texts.word_edges()
    ends = np.append(pieces[1:], len(texts.data))[: len(pieces)]
    # An odd number of edges up to a place: it is inside a word that began at the last of them.
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
    documents = np.searchsorted(texts.ends, starts, "right")
    # Words are told apart by white space alone in `edges`; one that runs on from the document before begins anew in its own.
    begun = (before_start + 1) // 2 - (inside_start & (edges[before_start - 1] == starts))
    anew = inside_start & (edges[before_start - 1] != starts) & (texts.starts[documents] == starts)
    words = (before_end + 1) // 2 - begun + anew
    return SentenceSpans(starts.astype(np.int64), ends.astype(np.int64), documents.astype(np.int32), words.astype(np.int32))


def split(text: str, rule: Rule, language: str = "en") -> tuple[str, list[tuple[str, str]]]:
    """Splits one document into sentences, as text.

    Returns (lead, [(sentence, gap), ...]) with lead + all sentences and gaps == text. No sentence is empty or has white space
    at either end; lead and gaps are white space only.
    """
    texts = DocumentBlock.of([("", text)])
    found = spans(texts, piece_starts(texts, rule, language))
    if not len(found.starts):
        return text, []
    bounds = [*np.stack([found.starts, found.ends], axis=1).reshape(-1).tolist(), len(texts.data)]
    parts = [texts.data[start:end].tobytes().decode() for start, end in pairwise([0, *bounds])]
    return parts[0], list(zip(parts[1::2], parts[2::2], strict=True))


def _sentencex(data: np.ndarray, language: str) -> np.ndarray:
    """Where that library says that sentences of a document start: int64 byte offsets, rising from 0.

    It takes what lies between blank lines by itself, so that a long document is given to it in parts.
    """
    cuts = [0]
    for blank in _BLANK_LINE.finditer(data.data) if len(data) > _PART else ():
        if blank.end() - cuts[-1] >= _PART:
            cuts.append(blank.end())
    found = []
    for start, end in pairwise([*cuts, len(data)]):
        text = str(data[start:end].data, "utf-8")
        starts = np.fromiter(_boundaries(text, language), np.int64)
        if not text.isascii():
            starts = _bytes_of(starts, data[start:end])
        found.append(starts + start)
    return np.concatenate(found)


def _bytes_of(characters: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The byte at which each of some characters of UTF-8 text begins; given by their numbers, rising."""
    found, before = [np.empty(0, np.int64)], 0
    for start, end in windows(data):
        begins = np.flatnonzero((data[start:end] & 0xC0) != 0x80)
        low, high = np.searchsorted(characters, [before, before + len(begins)])
        found.append(begins[characters[low:high] - before] + start)
        before += len(begins)
    return np.concatenate(found)


def _boundaries(text: str, language: str) -> list[int]:
    """Indices of characters at which sentences start, rising from 0."""
    try:
        return _unguarded_boundaries(text, language)
    except BaseException as error:
        # The library, in Rust, takes every white space for one byte in some places, and panics: which is no Exception in Python.
        if type(error).__name__ != "PanicException":
            raise
    return _unguarded_boundaries(text.translate(_WIDE_SPACES), language)


def _unguarded_boundaries(text: str, language: str) -> list[int]:
    segments = segment(language, text)
    starts = [0, *accumulate(map(len, segments))][:-1]
    # On some texts the segments leave characters out between them; where they don't, they cost half as much as the boundaries.
    if sum(map(len, segments)) == len(text) and all(segments) and all(map(text.startswith, segments, starts)):
        return starts
    return sorted({0, *(boundary["start_index"] for boundary in get_sentence_boundaries(language, text))} - {len(text)})

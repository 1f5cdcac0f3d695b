"""Splits overlong sentences at whitespace into pieces that are rows of their own, without losing a byte.

Shapes: N tokens, S rows (sentences, or pieces of them).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from packlm.text.document_block import DocumentBlock
from packlm.text.pretokens import gather
from packlm.text.sentences import SentenceSpans

Encode = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
_GATHER_ROWS = 1 << 14  # rows whose ids are gathered at a time


class SplitRows(NamedTuple):
    """Rows: their spans in the text, and their ids."""

    spans: SentenceSpans
    ids: np.ndarray
    """[N] ids end to end, `<eos>` after each row."""
    ends: np.ndarray
    """[S] int64: index in `ids` after each row."""
    joined: np.ndarray
    """[S] bool: whether the sentence continues in the next row."""


class _Pieces(NamedTuple):
    """Spans of pieces of sentences."""

    starts: np.ndarray
    ends: np.ndarray
    owners: np.ndarray
    """Index of the sentence among the original rows."""


def count(rows: SplitRows, max_tokens: int) -> int:
    """Number of rows of more than `max_tokens` ids."""
    return int((np.diff(rows.ends, prepend=0) > max_tokens).sum())


def error_message(block: DocumentBlock, rows: SplitRows, max_tokens: int) -> str:
    """The error of the first row of more than `max_tokens` ids."""
    lengths = np.diff(rows.ends, prepend=0)
    index = int(np.argmax(lengths > max_tokens))
    document = int(rows.spans.documents[index])
    number = index - int(np.searchsorted(rows.spans.documents, document)) + 1
    return (
        f"{block.names[document].as_py()}: sentence {number} has {lengths[index]:,} tokens, and corpus.max_tokens is {max_tokens:,}; "
        "raise it, or use --corpus.on_overlong split or keep"
    )


def split(block: DocumentBlock, rows: SplitRows, max_tokens: int, encode: Encode) -> SplitRows:
    """Splits rows of more than `max_tokens` ids, `<eos>` included, into pieces of at most that many.

    A sentence is split at the whitespace nearest to the ends of equal parts (that whitespace becomes a gap), or between two characters if
    it has none; pieces that are still too long are split again. A single character of more ids stays whole.

    Args:
        encode: `Encoder.encode_spans`.
    """
    edges = block.word_edges()
    lengths = np.diff(rows.ends, prepend=0)
    is_long = lengths > max_tokens
    done = [_Pieces(rows.spans.starts[~is_long], rows.spans.ends[~is_long], np.flatnonzero(~is_long))]
    offsets, counts = [(rows.ends - lengths)[~is_long]], [lengths[~is_long]]
    pool, pool_size = [rows.ids], len(rows.ids)
    pending = _Pieces(rows.spans.starts[is_long], rows.spans.ends[is_long], np.flatnonzero(is_long))
    pending_lengths = lengths[is_long]
    while len(pending.starts):
        # An eighth less than fits, since tokens are not spread evenly: few pieces are split again.
        parts = -(-(pending_lengths - 1) * 8 // ((max_tokens - 1) * 7))
        pieces = _cut(block.data, edges, pending, parts)
        ids, ends = encode(block.data, pieces.starts, pieces.ends, block.edges)
        lengths = np.diff(ends, prepend=0)
        is_long = (lengths > max_tokens) & _several_characters(block.data, pieces.starts, pieces.ends)
        done.append(_Pieces(*(array[~is_long] for array in pieces)))
        offsets.append((ends - lengths + pool_size)[~is_long])
        counts.append(lengths[~is_long])
        pool.append(ids)
        pool_size += len(ids)
        pending, pending_lengths = _Pieces(*(array[is_long] for array in pieces)), lengths[is_long]
    starts, stops, owners = (np.concatenate(arrays) for arrays in zip(*done, strict=True))
    order = np.argsort(starts)
    starts, stops, owners = starts[order], stops[order], owners[order]
    lengths = np.concatenate(counts)[order]
    spans = SentenceSpans(starts, stops, rows.spans.documents[owners], _words(edges, rows.spans, starts, stops, owners))
    ids = _gather_rows(np.concatenate(pool), np.concatenate(offsets)[order], lengths)
    return SplitRows(spans, ids, np.cumsum(lengths), np.diff(owners, append=-1) == 0)


def _cut(data: np.ndarray, edges: np.ndarray, whole: _Pieces, parts: np.ndarray) -> _Pieces:
    """Splits each piece into about `parts` parts; into two at least if it has two characters."""
    sizes = whole.ends - whole.starts
    parts = np.minimum(parts, sizes)
    owner = np.repeat(np.arange(len(sizes)), parts - 1)
    numbers = np.arange(len(owner)) - np.repeat(np.cumsum(parts - 1) - (parts - 1), parts - 1) + 1
    starts, ends = whole.starts[owner], whole.ends[owner]
    targets = starts + sizes[owner] * numbers // parts[owner]
    gap_starts, gap_ends = edges[1:-1:2], edges[2::2]
    left, right, gapped = _nearest_gap(gap_starts, gap_ends, starts, ends, targets)
    between = _between_characters(data, starts, ends, targets)
    left, right = np.where(gapped, left, between), np.where(gapped, right, between)
    new = (np.diff(left, prepend=-1) != 0) & (left > starts) & (right < ends)
    left, right, owner = left[new], right[new], owner[new]
    return _Pieces(
        np.insert(whole.starts, owner + 1, right), np.insert(whole.ends, owner, left), np.insert(whole.owners, owner, whole.owners[owner])
    )


def _nearest_gap(
    gap_starts: np.ndarray, gap_ends: np.ndarray, starts: np.ndarray, ends: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start of the whitespace nearest to each target within its piece, its end, whether there is any)."""
    if not len(gap_starts):
        return targets, targets, np.zeros(len(targets), bool)
    after = np.searchsorted(gap_starts, targets.astype(gap_starts.dtype))
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(gap_starts) - 1)
    distances = []
    for index in (before, after):
        inside = (gap_starts[index] > starts) & (gap_ends[index] < ends)
        distances.append(np.where(inside, np.abs(gap_starts[index] - targets), np.iinfo(np.int64).max))
    index = np.where(distances[0] <= distances[1], before, after)
    return gap_starts[index].astype(np.int64), gap_ends[index].astype(np.int64), np.minimum(*distances) < np.iinfo(np.int64).max


def _between_characters(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each target, the first index from there on between two characters of its piece, or else the last one before."""
    up = targets.copy()
    for _ in range(3):
        up += (up < ends) & (data[np.minimum(up, len(data) - 1)] & 0xC0 == 0x80)
    down = np.minimum(targets, ends - 1)
    for _ in range(3):
        down -= (down > starts) & (data[down] & 0xC0 == 0x80)
    return np.where(up < ends, up, down)


def _several_characters(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[S] bool: whether the text has at least two characters."""
    lead = data[starts]
    return ends - starts > 1 + (lead >= 0xC0) + (lead >= 0xE0).astype(np.int64) + (lead >= 0xF0)


def _words(edges: np.ndarray, whole: SentenceSpans, starts: np.ndarray, ends: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """[S] int32: words that begin in each piece; the first piece of a sentence has the sentence's words less those of the others."""
    begun = np.searchsorted(edges[::2].copy(), np.stack([starts, ends]).astype(edges.dtype))
    words = begun[1] - begun[0]
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    words[first] += whole.words - np.add.reduceat(words, first)
    return words.astype(np.int32)


def _gather_rows(pool: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`gather` by some rows at a time, since its index takes several times the memory of the ids."""
    runs = [gather(pool, starts[at : at + _GATHER_ROWS], lengths[at : at + _GATHER_ROWS]) for at in range(0, len(starts), _GATHER_ROWS)]
    return np.concatenate(runs)

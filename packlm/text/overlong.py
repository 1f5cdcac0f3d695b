"""Overlong sentences: split at white space into pieces that are rows of their own. Nothing is shortened, and no byte is lost.

Shapes: N tokens, S rows (sentences, or pieces of them).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from packlm.text.document_block import DocumentBlock
from packlm.text.pretokens import gather
from packlm.text.sentences import SentenceSpans

Encode = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
_ROWS = 1 << 14  # rows of ids put in order at a time


class SplitRows(NamedTuple):
    """Where rows are in the text, and their ids."""

    spans: SentenceSpans
    ids: np.ndarray
    """[N] ids end to end, `<eos>` after each row."""
    ends: np.ndarray
    """[S] int64: index in `ids` after each row."""
    joined: np.ndarray
    """[S] bool: the sentence goes on in the next row."""


class _Pieces(NamedTuple):
    """Parts of sentences to be encoded."""

    starts: np.ndarray
    ends: np.ndarray
    owners: np.ndarray
    """Index of the sentence among the rows as they were."""


def count(rows: SplitRows, most: int) -> int:
    """Rows of more than `most` ids."""
    return int((np.diff(rows.ends, prepend=0) > most).sum())


def complaint(texts: DocumentBlock, rows: SplitRows, most: int) -> str:
    """Names the first row of more than `most` ids, and what to do about it."""
    lengths = np.diff(rows.ends, prepend=0)
    index = int(np.argmax(lengths > most))
    document = int(rows.spans.documents[index])
    number = index - int(np.searchsorted(rows.spans.documents, document)) + 1
    return (
        f"{texts.names[document].as_py()}: sentence {number} has {lengths[index]:,} tokens, and corpus.max_tokens is {most:,}; "
        "raise it, or go on with --corpus.on_overlong split or keep"
    )


def split(texts: DocumentBlock, rows: SplitRows, most: int, encode: Encode) -> SplitRows:
    """Splits rows of more than `most` ids, `<eos>` included, into pieces of at most so many.

    A sentence is cut at the white space nearest to where equal parts would end (and that white space becomes a gap), or between two
    characters if it has none; pieces still too long are cut again. A single character of more ids than that stays whole.

    Args:
        encode: `Encoder.encode_spans`.
    """
    edges = texts.word_edges()
    lengths = np.diff(rows.ends, prepend=0)
    is_long = lengths > most
    done = [_Pieces(rows.spans.starts[~is_long], rows.spans.ends[~is_long], np.flatnonzero(~is_long))]
    places, counts = [(rows.ends - lengths)[~is_long]], [lengths[~is_long]]
    pool, pooled = [rows.ids], len(rows.ids)
    waiting = _Pieces(rows.spans.starts[is_long], rows.spans.ends[is_long], np.flatnonzero(is_long))
    waiting_lengths = lengths[is_long]
    while len(waiting.starts):
        # An eighth less than fits, since tokens are not spread evenly: few pieces are cut again.
        parts = -(-(waiting_lengths - 1) * 8 // ((most - 1) * 7))
        pieces = _cut(texts.data, edges, waiting, parts)
        ids, ends = encode(texts.data, pieces.starts, pieces.ends, texts.edges)
        lengths = np.diff(ends, prepend=0)
        is_long = (lengths > most) & _several_characters(texts.data, pieces.starts, pieces.ends)
        done.append(_Pieces(*(array[~is_long] for array in pieces)))
        places.append((ends - lengths + pooled)[~is_long])
        counts.append(lengths[~is_long])
        pool.append(ids)
        pooled += len(ids)
        waiting, waiting_lengths = _Pieces(*(array[is_long] for array in pieces)), lengths[is_long]
    starts, stops, owners = (np.concatenate(arrays) for arrays in zip(*done, strict=True))
    order = np.argsort(starts)
    starts, stops, owners = starts[order], stops[order], owners[order]
    lengths = np.concatenate(counts)[order]
    found = SentenceSpans(starts, stops, rows.spans.documents[owners], _words(edges, rows.spans, starts, stops, owners))
    ids = _ordered(np.concatenate(pool), np.concatenate(places)[order], lengths)
    return SplitRows(found, ids, np.cumsum(lengths), np.diff(owners, append=-1) == 0)


def _cut(data: np.ndarray, edges: np.ndarray, whole: _Pieces, parts: np.ndarray) -> _Pieces:
    """Cuts each piece into about so many parts; into two at least where it has two characters."""
    sizes = whole.ends - whole.starts
    parts = np.minimum(parts, sizes)
    owner = np.repeat(np.arange(len(sizes)), parts - 1)
    numbers = np.arange(len(owner)) - np.repeat(np.cumsum(parts - 1) - (parts - 1), parts - 1) + 1
    starts, ends = whole.starts[owner], whole.ends[owner]
    aims = starts + sizes[owner] * numbers // parts[owner]
    gap_starts, gap_ends = edges[1:-1:2], edges[2::2]
    left, right, gapped = _nearest_gap(gap_starts, gap_ends, starts, ends, aims)
    between = _between_characters(data, starts, ends, aims)
    left, right = np.where(gapped, left, between), np.where(gapped, right, between)
    new = (np.diff(left, prepend=-1) != 0) & (left > starts) & (right < ends)
    left, right, owner = left[new], right[new], owner[new]
    return _Pieces(
        np.insert(whole.starts, owner + 1, right), np.insert(whole.ends, owner, left), np.insert(whole.owners, owner, whole.owners[owner])
    )


def _nearest_gap(
    gap_starts: np.ndarray, gap_ends: np.ndarray, starts: np.ndarray, ends: np.ndarray, aims: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start of the white space nearest to each aim within its piece, its end, whether there is any)."""
    if not len(gap_starts):
        return aims, aims, np.zeros(len(aims), bool)
    after = np.searchsorted(gap_starts, aims.astype(gap_starts.dtype))
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(gap_starts) - 1)
    distances = []
    for index in (before, after):
        inside = (gap_starts[index] > starts) & (gap_ends[index] < ends)
        distances.append(np.where(inside, np.abs(gap_starts[index] - aims), np.iinfo(np.int64).max))
    index = np.where(distances[0] <= distances[1], before, after)
    return gap_starts[index].astype(np.int64), gap_ends[index].astype(np.int64), np.minimum(*distances) < np.iinfo(np.int64).max


def _between_characters(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, aims: np.ndarray) -> np.ndarray:
    """Of each aim, the first place from there on that is between two characters of its piece, or else the last one before."""
    up = aims.copy()
    for _ in range(3):
        up += (up < ends) & (data[np.minimum(up, len(data) - 1)] & 0xC0 == 0x80)
    down = np.minimum(aims, ends - 1)
    for _ in range(3):
        down -= (down > starts) & (data[down] & 0xC0 == 0x80)
    return np.where(up < ends, up, down)


def _several_characters(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[S] bool: the text has two characters at least."""
    lead = data[starts]
    return ends - starts > 1 + (lead >= 0xC0) + (lead >= 0xE0).astype(np.int64) + (lead >= 0xF0)


def _words(edges: np.ndarray, whole: SentenceSpans, starts: np.ndarray, ends: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """[S] int32: words that begin in each piece. The first piece of a sentence has what the others leave of the sentence's."""
    begun = np.searchsorted(edges[::2].copy(), np.stack([starts, ends]).astype(edges.dtype))
    words = begun[1] - begun[0]
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    words[first] += whole.words - np.add.reduceat(words, first)
    return words.astype(np.int32)


def _ordered(pool: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`gather`, some rows at a time: its index would take several times the memory of the ids."""
    found = [gather(pool, starts[at : at + _ROWS], lengths[at : at + _ROWS]) for at in range(0, len(starts), _ROWS)]
    return np.concatenate(found)

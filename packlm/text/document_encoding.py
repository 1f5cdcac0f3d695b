"""Documents to ids: split into sentences, encoded, overlong sentences split. Shapes: N tokens, S rows (sentences), D documents."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.text import overlong, pretokens, sentences
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoder


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents as ids. A row is a sentence, or a piece of an overlong one. Counts are those of the original text."""

    ids: np.ndarray
    """[N] uint16 or uint32: ids of all rows end to end, each ending in `<eos>`."""
    ends: np.ndarray
    """[S] int64: index in `ids` after each row."""
    document_starts: np.ndarray
    """[D] int64: index in `ids` of the first token of each document that has a sentence."""
    documents: np.ndarray
    """[S] int32: index of the row's document in the block."""
    positions: np.ndarray
    """[S] int32: index of the row in its document."""
    words: np.ndarray
    """[S] int32: whitespace-separated words that begin in the row; they add up to those of the document."""
    bytes: np.ndarray
    """[S] int32: UTF-8 bytes of the row itself."""
    joined: np.ndarray
    """[S] bool: whether the sentence continues in the next row."""
    leads: pa.StringArray
    """[S] whitespace before the document's first row."""
    gaps: pa.StringArray
    """[S] whitespace after the row."""
    num_documents: int
    """Documents that have a sentence."""
    num_words: int
    """Whitespace-separated words of all documents."""
    num_bytes: int
    """UTF-8 bytes of all documents, whitespace between sentences included."""
    overlong: int
    """Sentences of more than `rules.max_tokens` tokens, split or not."""


def encode_documents(block: DocumentBlock, rules: Corpus, encoder: Encoder, pieces: np.ndarray | None = None) -> EncodedDocuments:
    """Splits documents into sentences by `rules` and encodes them, in memory.

    Args:
        pieces: the result of `sentences.piece_starts`, if known.

    Raises:
        PacklmError: an overlong sentence, under on_overlong = "error".
    """
    if pieces is None:
        pieces = sentences.piece_starts(block, rules.sentences, rules.language)
    spans = sentences.spans(block, pieces)
    ids, ends = encoder.encode_spans(block.data, spans.starts, spans.ends, block.edges)
    rows = overlong.SplitRows(spans, ids, ends, np.zeros(len(ends), bool))
    num_overlong = 0
    if rules.max_tokens is not None:
        num_overlong = overlong.count(rows, rules.max_tokens)
        if num_overlong and rules.on_overlong == "error":
            raise PacklmError(overlong.error_message(block, rows, rules.max_tokens))
        if num_overlong and rules.on_overlong == "split":
            rows = overlong.split(block, rows, rules.max_tokens, encoder.encode_spans)
    starts, stops, documents, words = rows.spans
    is_first = np.diff(documents, prepend=-1) != 0
    first_rows = np.flatnonzero(is_first)
    positions = np.arange(len(starts)) - np.repeat(first_rows, np.diff(first_rows, append=len(starts)))
    is_last = np.append(is_first[1:], True)[: len(starts)]
    gap_ends = np.where(is_last, block.ends[documents], np.append(starts[1:], 0)[: len(starts)])
    lead_starts = np.where(is_first, block.starts[documents], starts)
    return EncodedDocuments(
        ids=rows.ids,
        ends=rows.ends,
        document_starts=np.concatenate([np.zeros(1, np.int64), rows.ends])[first_rows],
        documents=documents,
        positions=positions.astype(np.int32),
        words=words,
        bytes=(stops - starts).astype(np.int32),
        joined=rows.joined,
        leads=_strings(block.data, lead_starts, starts),
        gaps=_strings(block.data, stops, gap_ends),
        num_documents=len(first_rows),
        num_words=int(words.sum(dtype=np.int64)),
        num_bytes=len(block.data),
        overlong=num_overlong,
    )


def _strings(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.StringArray:
    """The text of each span [start, end), as Arrow strings."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int32)
    text = pretokens.gather(data, starts, ends - starts)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(text))

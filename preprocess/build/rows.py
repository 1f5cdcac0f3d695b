"""The fixed view: ids cut into rows of L targets, block after block."""

from typing import Literal

import numpy as np
import pyarrow as pa

from packlm import dataset


class RowCutter:
    """Cuts the ids of a shard, which come in blocks of whole documents, into rows.

    `stream` cuts all documents laid end to end; ids that do not fill a row wait for the next block. `document` cuts each by itself.
    """

    def __init__(self, rule: Literal["stream", "document"], types: dataset.ColumnTypes, eos: int):
        self._rule = rule
        self._types = types
        self._previous_id = eos  # before the first target: the shard's start symbol
        self._ids = np.empty(0, np.uint16)
        self._document_starts = np.empty(0, np.int64)

    def add(self, ids: np.ndarray, document_starts: np.ndarray) -> pa.Table:
        """Returns the rows that these ids [N] complete; documents start at `document_starts` [D]."""
        opens = np.concatenate([self._document_starts, document_starts + len(self._ids)])
        ids = np.concatenate([self._ids, ids])
        end, length = len(ids), self._types.length
        if self._rule == "stream":
            end -= end % length
            starts = np.arange(0, end, length)
            stops = starts + length
        else:
            lengths = np.diff(opens, append=end)
            counts = -(-lengths // length)
            index_in_document = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(opens, counts) + index_in_document * length
            stops = np.minimum(starts + length, np.repeat(opens + lengths, counts))
        table = dataset.fixed_table(ids, opens, starts, stops, self._previous_id, self._types)
        if end:
            self._previous_id = int(ids[end - 1])
        self._ids, self._document_starts = ids[end:], opens[opens >= end] - end
        return table

    def rest(self) -> pa.Table:
        """Returns the short last row of a stream, if there is one."""
        ends = np.array([len(self._ids)] if len(self._ids) else [], np.int64)
        return dataset.fixed_table(self._ids, self._document_starts, ends * 0, ends, self._previous_id, self._types)

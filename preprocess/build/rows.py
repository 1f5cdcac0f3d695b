"""The fixed view: ids cut into rows of L targets, block after block."""

from typing import Literal

import numpy as np
import pyarrow as pa

from packlm import dataset


class RowCutter:
    """Cuts the ids of a shard, which come in blocks of whole documents, into rows.

    `stream` cuts the documents laid end to end: what does not fill a row waits for the next block. `document` cuts each by itself.
    """

    def __init__(self, rule: Literal["stream", "document"], like: dataset.ColumnTypes, eos: int):
        self._rule = rule
        self._like = like
        self._before = eos  # of the first target: the shard's start symbol
        self._ids = np.empty(0, np.uint16)
        self._opens = np.empty(0, np.int64)

    def add(self, ids: np.ndarray, opens: np.ndarray) -> pa.Table:
        """The rows that are full with these ids [N], of which those at `opens` [D] open a document."""
        ids, opens = np.concatenate([self._ids, ids]), np.concatenate([self._opens, opens + len(self._ids)])
        end, length = len(ids), self._like.length
        if self._rule == "stream":
            end -= end % length
            starts = np.arange(0, end, length)
            stops = starts + length
        else:
            lengths = np.diff(opens, append=end)
            counts = -(-lengths // length)
            number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(opens, counts) + number * length
            stops = np.minimum(starts + length, np.repeat(opens + lengths, counts))
        table = dataset.fixed_table(ids, opens, starts, stops, self._before, self._like)
        if end:
            self._before = int(ids[end - 1])
        self._ids, self._opens = ids[end:], opens[opens >= end] - end
        return table

    def rest(self) -> pa.Table:
        """The short last row of a stream, if there is one."""
        ends = np.array([len(self._ids)] if len(self._ids) else [], np.int64)
        return dataset.fixed_table(self._ids, self._opens, ends * 0, ends, self._before, self._like)

"""Counts of strings, in memory proportional to the distinct ones."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PENDING_ROWS = 1 << 19  # rows added before equal entries are merged

SCHEMA = pa.schema([("entry", pa.binary()), ("count", pa.int64())])


class Counts:
    """Sums of counts. Holds at most about twice the distinct strings, plus `_PENDING_ROWS` rows."""

    def __init__(self) -> None:
        self._parts = [SCHEMA.empty_table()]
        self._pending = self._distinct = 0

    def add(self, values: pa.Array, counts: np.ndarray) -> None:
        """Adds [n] strings, which may repeat, and their [n] int64 counts."""
        self._parts.append(pa.table([values.cast(pa.binary()), pa.array(counts, pa.int64())], schema=SCHEMA))
        self._pending += len(values)
        if self._pending > max(_PENDING_ROWS, self._distinct):
            self._parts = [total(pa.concat_tables(self._parts))]
            self._pending, self._distinct = 0, self._parts[0].num_rows

    def table(self) -> pa.Table:
        """`entry` (binary, distinct, ascending by bytes) and `count` (int64), in one chunk each."""
        sums = total(pa.concat_tables(self._parts))
        return sums.take(pc.sort_indices(sums, [("entry", "ascending")])).combine_chunks()


def total(table: pa.Table) -> pa.Table:
    """Sums the counts of equal entries; in no particular order."""
    return table.group_by("entry", use_threads=False).aggregate([("count", "sum")]).rename_columns(SCHEMA.names)


def most_frequent(table: pa.Table, limit: int) -> pa.Table:
    """The `limit` rows with the largest counts, descending, equal counts by entry; entries must be distinct."""
    order = [("count", "descending"), ("entry", "ascending")]
    if limit >= table.num_rows:
        return table.sort_by(order)
    return table.take(pc.select_k_unstable(table, limit, order))

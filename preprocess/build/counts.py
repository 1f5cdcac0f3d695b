"""How often each of many strings occurs, in memory that depends on the distinct ones alone."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PENDING_ROWS = 1 << 19  # rows taken in before equal ones are added up

SCHEMA = pa.schema([("entry", pa.binary()), ("count", pa.int64())])


class Counts:
    """Adds up counts of strings. Holds at most about twice the distinct strings, and half a million rows more."""

    def __init__(self) -> None:
        self._parts = [SCHEMA.empty_table()]
        self._pending = self._distinct = 0

    def add(self, values: pa.Array, counts: np.ndarray) -> None:
        """Takes in [n] strings, repeated ones too, and [n] int64 counts."""
        self._parts.append(pa.table([values.cast(pa.binary()), pa.array(counts, pa.int64())], schema=SCHEMA))
        self._pending += len(values)
        if self._pending > max(_PENDING_ROWS, self._distinct):
            self._parts = [total(pa.concat_tables(self._parts))]
            self._pending, self._distinct = 0, self._parts[0].num_rows

    def table(self) -> pa.Table:
        """`entry` (binary, each once, ascending by bytes) and `count` (int64), in one chunk each."""
        found = total(pa.concat_tables(self._parts))
        return found.take(pc.sort_indices(found, [("entry", "ascending")])).combine_chunks()


def total(table: pa.Table) -> pa.Table:
    """Adds up the counts of equal entries; in no order."""
    return table.group_by("entry", use_threads=False).aggregate([("count", "sum")]).rename_columns(SCHEMA.names)


def most(table: pa.Table, limit: int) -> pa.Table:
    """The `limit` largest counts, largest first, equal ones by entry; every entry must be there once."""
    order = [("count", "descending"), ("entry", "ascending")]
    if limit >= table.num_rows:
        return table.sort_by(order)
    return table.take(pc.select_k_unstable(table, limit, order))

"""Exact counts of words, characters or pre-tokens: counted task by task, then merged into the most frequent of all.

Text passes the tokenizer's own normalizer and pre-tokenizer, so what is counted is what it will look up. A task's counts are a table of
two columns, `entry` (binary, UTF-8, distinct, ascending by bytes) and `count` (int64), in the single batch of an Arrow IPC file, so that
the tables of all tasks can be merged from memory maps, a range of entries at a time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.text import tokenizers
from packlm.text.tokenizer_kind import TokenizerKind

Priorities = Callable[[pa.BinaryArray, np.ndarray], np.ndarray]
"""`TokenizerKind.priorities`."""
MOST_FREQUENT: Priorities = TokenizerKind().priorities
SCHEMA = pa.schema([("entry", pa.binary()), ("count", pa.int64())])
_PENDING_ROWS = 1 << 19  # rows added before equal entries are merged
_BLOCK_ROWS = 1 << 16  # distinct pre-tokens turned into entries at a time
_RANGE_BYTES = 1 << 26  # approximate size of a range
_ROW_BYTES = 16  # size of a row without its text
_SPLITTER_BYTES = 64  # ranges may end anywhere, so long entries are cut


@dataclass(frozen=True)
class Vocabulary:
    """Merged counts. Words spelled like the special tokens are not among them."""

    entries: list[tuple[str, int]]
    """The entries of the highest priority and their counts, descending by priority; equal ones by code point."""
    distinct: int
    """Number of distinct entries, including those not in `entries`."""
    tokens: int
    """Sum of the counts of all of them."""


class EntryCounter:
    """Counts the entries (`TokenizerKind.entries`) of one task's text. Memory: a few times the distinct pre-tokens."""

    def __init__(self, settings: config.Tokenizer):
        self._settings = settings
        self._pre_tokens = Counts()

    def add(self, values: pa.Array, counts: np.ndarray) -> None:
        """Adds [n] pre-tokens of sentences that occur `counts` [n] (int64) times each.

        A pre-token begins with at most one whitespace byte, and the pre-tokens of a sentence, end to end, are the sentence: no word, and no
        characters that a normal form would compose, span two of them.
        """
        self._pre_tokens.add(values, counts)

    def write(self, path: Path) -> None:
        """Writes the table of entries and counts; the same text gives the same bytes, whatever blocks it was added in."""
        kind, entries, pre_tokens = tokenizers.KINDS[self._settings.kind], Counts(), self._pre_tokens.table()
        for start in range(0, pre_tokens.num_rows, _BLOCK_ROWS):
            block = pre_tokens.slice(start, _BLOCK_ROWS)
            values = block.column("entry").combine_chunks().cast(pa.string())
            entries.add(*kind.entries(self._settings, values, block.column("count").to_numpy()))
        batch = pa.record_batch([column.combine_chunks() for column in entries.table().columns], schema=SCHEMA)
        with files.atomic(path) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
            writer.write_batch(batch)


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


def highest(table: pa.Table, limit: int) -> pa.Table:
    """The `limit` rows of the highest `priority`, descending, equal ones by entry; entries must be distinct."""
    order = [("priority", "descending"), ("entry", "ascending")]
    if limit >= table.num_rows:
        return table.sort_by(order)
    return table.take(pc.select_k_unstable(table, limit, order))


def merge(paths: Sequence[Path], limit: int, min_count: int = 1, priorities_of: Priorities = MOST_FREQUENT) -> Vocabulary:
    """Merges tables into the `limit` entries of the highest priority with counts of at least `min_count`, exactly.

    Memory: some hundred megabytes, `limit` entries, and some kilobytes per table, whatever the size of the tables.

    Raises:
        PacklmError: a table is missing or damaged.
    """
    tables = [_Table(path) for path in paths]
    best, distinct, tokens = SCHEMA.append(pa.field("priority", pa.float64())).empty_table(), 0, 0
    for rows in _ranges(tables):
        merged = total(rows)
        counts = merged.column("count").to_numpy()
        distinct += len(counts)
        tokens += int(counts.sum())
        merged = merged.filter(pa.array(counts >= min_count)).combine_chunks()
        priorities = priorities_of(merged.column("entry").combine_chunks(), merged.column("count").to_numpy())
        merged = merged.append_column("priority", pa.array(priorities, pa.float64()))
        # Ranges ascend, so among equal priorities the entries of earlier ranges come first.
        least = best.column("priority")[-1].as_py() if best.num_rows == limit else 0
        best = highest(pa.concat_tables([best, merged.filter(pa.array(priorities > least))]), limit).combine_chunks()
    entries = best.column("entry").cast(pa.string()).to_pylist()
    return Vocabulary(list(zip(entries, best.column("count").to_pylist(), strict=True)), distinct, tokens)


class _Table:
    """The counts of a task, memory-mapped."""

    def __init__(self, path: Path):
        try:
            with pa.memory_map(str(path)) as source:  # the mapping outlives the open file
                self.rows = pa.Table.from_batches([pa.ipc.open_file(source).get_batch(0)], SCHEMA)
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise PacklmError(f"{path}: not a table of counts ({error}); run the same command again") from None
        self.entries = self.rows.column("entry").chunk(0)

    def sizes(self) -> np.ndarray:
        """[rows + 1] int64: bytes of all rows before each."""
        offsets = np.frombuffer(self.entries.buffers()[1], np.int32, len(self) + 1) if len(self) else np.zeros(1, np.int32)
        return offsets.astype(np.int64) + _ROW_BYTES * np.arange(len(offsets))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> bytes:
        return self.entries[index].as_py()


def _ranges(tables: Sequence[_Table]) -> Iterator[pa.Table]:
    """All rows of all tables in ascending ranges of entries, each of at most about twice `_RANGE_BYTES`."""
    splitters = _splitters(tables)
    bounds = []
    for table in tables:
        ends = [0]
        for splitter in splitters:
            ends.append(bisect_left(table, splitter, ends[-1]))
        bounds.append([*ends, len(table)])
    for index in range(len(splitters) + 1):
        slices = [table.rows.slice(ends[index], ends[index + 1] - ends[index]) for table, ends in zip(tables, bounds, strict=True)]
        yield pa.concat_tables([SCHEMA.empty_table(), *slices])


def _splitters(tables: Sequence[_Table]) -> list[bytes]:
    """The ends of ranges: quantiles of entries sampled from each table at equal distances; each of T tables adds an error of 1/T range."""
    step = max(1, _RANGE_BYTES // max(1, len(tables)))
    samples = [SCHEMA.empty_table()]
    for table in tables:
        sizes = table.sizes()
        rows, repeats = np.unique(np.searchsorted(sizes, np.arange(step, sizes[-1], step), "right") - 1, return_counts=True)
        samples.append(pa.table([pc.binary_slice(table.entries.take(pa.array(rows)), 0, _SPLITTER_BYTES), repeats], schema=SCHEMA))
    sample = total(pa.concat_tables(samples)).sort_by("entry")
    weight = np.cumsum(sample.column("count").to_numpy()) // max(1, len(tables))
    return sample.column("entry").filter(pa.array(np.diff(weight, prepend=0) > 0)).to_pylist()

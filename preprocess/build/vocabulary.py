"""Exact counts of words or characters: counted task by task, then merged into the most frequent of all.

What is counted is what the tokenizer will look up: chunks of text go through its own normalizer and pre-tokenizer. A task's counts are
a table of two columns, `entry` (binary, UTF-8, each once, ascending by bytes) and `count` (int64), in the one batch of an Arrow IPC
file, so that the tables of all tasks can be merged from memory maps, a range of entries at a time.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.text import tokenizers

from .counts import SCHEMA, Counts, most, total

_BLOCK_ROWS = 1 << 16  # distinct pre-tokens turned into entries at a time
_RANGE_BYTES = 1 << 26  # about the size of what is merged at a time
_ROW_BYTES = 16  # what a row weighs besides its text
_SPLITTER_BYTES = 64  # a range may end anywhere, so a long entry is not worth copying in whole


@dataclass(frozen=True)
class Vocabulary:
    """What `merge` found. Words spelled like the special tokens are left out of all of it."""

    entries: list[tuple[str, int]]
    """The most frequent entries and how often each occurs: most frequent first, equal ones by code point."""
    distinct: int
    """Distinct entries there are, kept or not."""
    tokens: int
    """Occurrences of all of them."""


class Counter:
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


def merge(paths: Sequence[Path], limit: int, min_count: int = 1) -> Vocabulary:
    """The `limit` most frequent entries of all tables together, of those that occur `min_count` times or more.

    Exact. Memory: some hundred megabytes, `limit` entries and, a table, some kilobytes, however much the tables hold.

    Raises:
        PacklmError: a table is missing or damaged.
    """
    tables = [_Table(path) for path in paths]
    best, distinct, tokens = SCHEMA.empty_table(), 0, 0
    for together in _ranges(tables):
        found = total(together)
        counts = found.column("count").to_numpy()
        distinct += len(counts)
        tokens += int(counts.sum())
        # Ranges ascend, so of equal counts what is there already comes first.
        full = best.num_rows == limit
        least = max(min_count, best.column("count")[-1].as_py() + 1 if full else 1)
        best = most(pa.concat_tables([best, found.filter(pa.array(counts >= least))]), limit).combine_chunks()
    entries = best.column("entry").cast(pa.string()).to_pylist()
    return Vocabulary(list(zip(entries, best.column("count").to_pylist(), strict=True)), distinct, tokens)


class _Table:
    """A task's counts, as a memory map."""

    def __init__(self, path: Path):
        try:
            with pa.memory_map(str(path)) as source:  # what is mapped stays so; the file itself need not stay open
                self.rows = pa.Table.from_batches([pa.ipc.open_file(source).get_batch(0)], SCHEMA)
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise PacklmError(f"{path}: not a table of counts ({error}); run the same command again") from None
        self.entries = self.rows.column("entry").chunk(0)

    def sizes(self) -> np.ndarray:
        """[n + 1] int64: what the rows before each weigh, in bytes."""
        offsets = np.frombuffer(self.entries.buffers()[1], np.int32, len(self) + 1) if len(self) else np.zeros(1, np.int32)
        return offsets.astype(np.int64) + _ROW_BYTES * np.arange(len(offsets))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> bytes:
        return self.entries[index].as_py()


def _ranges(tables: Sequence[_Table]) -> Iterator[pa.Table]:
    """All rows of all tables, in ranges of entries that ascend and that weigh about twice `_RANGE_BYTES` at most."""
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
    """Where ranges end: quantiles of entries taken from every table at equal distances, so that each of T tables errs by 1/T of a range."""
    step = max(1, _RANGE_BYTES // max(1, len(tables)))
    samples = [SCHEMA.empty_table()]
    for table in tables:
        sizes = table.sizes()
        rows, times = np.unique(np.searchsorted(sizes, np.arange(step, sizes[-1], step), "right") - 1, return_counts=True)
        samples.append(pa.table([pc.binary_slice(table.entries.take(pa.array(rows)), 0, _SPLITTER_BYTES), times], schema=SCHEMA))
    sample = total(pa.concat_tables(samples)).sort_by("entry")
    weight = np.cumsum(sample.column("count").to_numpy()) // max(1, len(tables))
    return sample.column("entry").filter(pa.array(np.diff(weight, prepend=0) > 0)).to_pylist()

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
from tokenizers import normalizers

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.dataset import EOS, UNK
from packlm.text import tokenizer

from .counts import SCHEMA, Counts, most, total

_BLOCK_ROWS = 1 << 16  # distinct chunks turned into entries at a time
_RANGE_BYTES = 1 << 26  # about the size of what is merged at a time
_ROW_BYTES = 16  # what a row weighs besides its text
_SPLITTER_BYTES = 64  # a range may end anywhere, so a long entry is not worth copying in whole
_SEPARATOR = "\x00"
# A chunk that is one word, its white space aside; of marks and letters outside ASCII the pre-tokenizer has to say what is a word.
_ONE_WORD = {"space": f"^[\\t-\\r ]?[^{tokenizer.SPACES}]+$", "punctuation": r"^[\t-\r ]?[0-9A-Z_a-z]+$"}


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
    """Counts the words or characters of one task's text; for bpe, its chunks. Memory: a few times the distinct chunks."""

    def __init__(self, settings: config.Tokenizer):
        self._settings = settings
        self._chunks = Counts()

    def add(self, values: pa.Array, counts: np.ndarray) -> None:
        """Takes in [n] chunks of sentences and [n] int64, how often each occurs.

        A chunk begins with at most one white-space byte, and the chunks of a sentence, end to end, are the sentence: no word, and no
        characters that a normal form would compose, lie across the border of two.
        """
        self._chunks.add(values, counts)

    def write(self, path: Path) -> None:
        """Writes the table of entries and counts; the same text gives the same bytes, however it was cut into blocks."""
        chunks = self._chunks.table()
        made = {"word": self._words, "character": self._characters, "bpe": lambda table: table}[self._settings.kind](chunks)
        batch = pa.record_batch([column.combine_chunks() for column in made.columns], schema=SCHEMA)
        with files.atomic(path) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
            writer.write_batch(batch)

    def _words(self, chunks: pa.Table) -> pa.Table:
        words = Counts()
        split = tokenizer.pre_tokenizer(self._settings).pre_tokenize_str
        for values, counts in self._blocks(chunks):
            plain = pc.match_substring_regex(values, _ONE_WORD[self._settings.words])
            mask = plain.to_numpy(zero_copy_only=False)
            words.add(pc.utf8_ltrim(values.filter(plain), "\t\n\v\f\r "), counts[mask])
            others = [[word for word, _ in split(value)] for value in values.filter(pc.invert(plain)).to_pylist()]
            several = np.fromiter(map(len, others), np.int64, len(others))
            words.add(pa.array([word for found in others for word in found], pa.string()), np.repeat(counts[~mask], several))
        table = words.table()
        special = pc.is_in(table.column("entry"), pa.array([EOS.encode(), UNK.encode()]))
        return table.filter(pc.invert(special))

    def _characters(self, chunks: pa.Table) -> pa.Table:
        totals = np.zeros(0x110000, np.int64)
        for values, counts in self._blocks(chunks):
            points = np.frombuffer("".join(values.to_pylist()).encode("utf-32-le"), np.uint32)
            np.add.at(totals, points, np.repeat(counts, pc.utf8_length(values).to_numpy()))
        found = np.flatnonzero(totals)
        return pa.table([pa.array([chr(point).encode() for point in found.tolist()], pa.binary()), totals[found]], schema=SCHEMA)

    def _blocks(self, chunks: pa.Table) -> Iterator[tuple[pa.StringArray, np.ndarray]]:
        """[n] distinct chunks as the normalizer leaves them, and their [n] counts."""
        normalizer = tokenizer.normalizer(self._settings)
        for start in range(0, chunks.num_rows, _BLOCK_ROWS):
            block = chunks.slice(start, _BLOCK_ROWS)
            values = block.column("entry").combine_chunks().cast(pa.string())
            if normalizer is not None:
                values = pa.array(_normalized(normalizer, values.to_pylist()), pa.string())
            yield values, block.column("count").to_numpy()


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


def _normalized(normalizer: normalizers.Normalizer, texts: list[str]) -> list[str]:
    """Each text as the normalizer leaves it; in one call, unless a text has the separator in it, which composes with nothing."""
    together: list[str] = normalizer.normalize_str(_SEPARATOR.join(texts)).split(_SEPARATOR)
    return together if len(together) == len(texts) else [normalizer.normalize_str(text) for text in texts]

"""A hash table of strings with bulk look-ups, several hundred thousand at a time, without a Python object for each.

Shapes: Q strings looked up, K strings in the table.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
"""Masks of the first `count` of eight bytes."""
_LONG_BYTES = 128  # longer strings are kept in a dict: they are few, and would each take a step of its own for every eight bytes
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio
_MIN_SLOTS = 1 << 10


class GrowingArray:
    """A one-dimensional array that grows at its end, in amortized constant time per value."""

    def __init__(self, values: np.ndarray):
        self._buffer, self._size = values, len(values)

    @property
    def values(self) -> np.ndarray:
        """All values, as a view."""
        return self._buffer[: self._size]

    def add(self, values: np.ndarray) -> None:
        """Appends values of the same type."""
        size = self._size + len(values)
        if size > len(self._buffer):
            self._buffer = np.concatenate([self.values, np.empty(max(size, 2 * self._size) - self._size, self._buffer.dtype)])
        self._buffer[self._size : size] = values
        self._size = size

    def drop(self, count: int) -> None:
        """Drops the last values. Views of them stay valid until values are added."""
        self._size -= count


class HashTable:
    """Distinct strings, numbered 0, 1, 2 ... in the order they were added (their rows).

    Open addressing with linear probing; at most half of the slots are taken.
    """

    def __init__(self) -> None:
        self._slots = np.full(_MIN_SLOTS, -1, np.int32)
        """Row of the string in each slot; -1 if free."""
        self._long: dict[str, int] = {}
        """Row of each long string; these have no slots."""
        self._hashes = GrowingArray(np.empty(0, np.uint64))
        self._lengths = GrowingArray(np.empty(0, np.int32))
        self._starts = GrowingArray(np.empty(0, np.int64))
        """[K] index of each string's first eight bytes in `_words`."""
        self._words = GrowingArray(np.empty(0, np.uint64))
        """The bytes of each string (the first ones of a long string), zero-padded to a positive multiple of eight."""

    def __len__(self) -> int:
        return len(self._hashes.values)

    @property
    def num_bytes(self) -> int:
        """Approximate bytes of all strings."""
        return self._words.values.nbytes + sum(map(len, self._long))

    def find(self, values: pa.StringArray) -> np.ndarray:
        """[Q] int64: the row of each string; -1 for strings that are not in the table.

        Of several strings with the same 64-bit hash only one is found, but none is mistaken for another.
        """
        rows = np.full(len(values), -1)
        if not len(self):
            return rows
        queries, hashes = _Strings.of(values), self._hashes.values
        pending, slots = np.arange(len(values)), self._slots_of(queries.hashes)
        while pending.size:
            candidates = self._slots[slots]
            taken = candidates >= 0
            pending, slots, candidates = pending[taken], slots[taken], candidates[taken]
            same = hashes[candidates] == queries.hashes[pending]
            rows[pending[same]] = candidates[same]
            pending, slots = pending[~same], self._next(slots[~same])
        rows[~self._equal(queries, rows)] = -1
        if self._long:
            long = np.flatnonzero(queries.lengths > _LONG_BYTES)
            rows[long] = [self._long.get(text, -1) for text in values.take(pa.array(long)).to_pylist()]
        return rows

    def add(self, values: pa.StringArray) -> None:
        """Adds strings that are distinct and not in the table."""
        strings, first = _Strings.of(values), len(self)
        long = np.flatnonzero(strings.lengths > _LONG_BYTES)
        self._long.update(zip(values.take(pa.array(long)).to_pylist(), (first + long).tolist(), strict=True))
        sizes = np.clip(-(-strings.lengths.astype(np.int64) // 8), 1, _LONG_BYTES // 8)
        starts = np.cumsum(sizes) - sizes
        words = np.empty(int(sizes.sum()), np.uint64)
        for number, (which, word) in enumerate(strings.words):
            words[starts[which] + number] = word
        self._starts.add(starts + len(self._words.values))
        self._words.add(words)
        self._lengths.add(strings.lengths)
        self._hashes.add(strings.hashes)
        if 2 * len(self) > len(self._slots):
            self._slots, first = np.full(1 << (2 * len(self)).bit_length(), -1, np.int32), 0
        rows = first + np.flatnonzero(self._lengths.values[first:] <= _LONG_BYTES).astype(np.int32)
        slots = self._slots_of(self._hashes.values[rows])
        while rows.size:
            free = self._slots[slots] < 0
            self._slots[slots[free]] = rows[free]
            displaced = self._slots[slots] != rows  # of several rows with the same free slot the last one has it
            rows, slots = rows[displaced], self._next(slots[displaced])

    def _slots_of(self, hashes: np.ndarray) -> np.ndarray:
        """The highest bits of hashes, as many as number all slots."""
        return (hashes >> np.uint64(65 - len(self._slots).bit_length())).astype(np.int64)

    def _next(self, slots: np.ndarray) -> np.ndarray:
        return (slots + 1) & (len(self._slots) - 1)

    def _equal(self, queries: "_Strings", rows: np.ndarray) -> np.ndarray:
        """[Q] whether each string equals the one in its row, byte for byte; undefined for row -1."""
        same, starts = self._lengths.values[rows] == queries.lengths, self._starts.values[rows]
        for number, (which, word) in enumerate(queries.words):
            same[which] &= self._words.values.take(starts[which] + number, mode="clip") == word
        return same


@dataclass(frozen=True)
class _Strings:
    """Strings as 64-bit words, and their hashes; of long strings the first `_LONG_BYTES` only."""

    lengths: np.ndarray
    """[Q] int32 bytes."""
    words: list[tuple[slice | np.ndarray, np.ndarray]]
    """(all strings, their first eight bytes), then (the indices of those that are longer, their second eight bytes), and so on."""
    hashes: np.ndarray
    """[Q] uint64."""

    @staticmethod
    def of(values: pa.StringArray) -> "_Strings":
        _, offsets, text = values.buffers()
        bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1] if len(values) else np.zeros(1, np.int32)
        data = np.zeros(int(bounds[-1] - bounds[0]) + 8, np.uint8)
        if len(data) > 8:
            data[:-8] = np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]]
        words_at = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))  # the eight bytes from each byte on
        lengths = np.diff(bounds)
        words: list[tuple[slice | np.ndarray, np.ndarray]] = []
        hashes = lengths.astype(np.uint64) * _FACTOR
        which, offset, remaining = np.arange(len(lengths)), bounds[:-1] - bounds[0], np.minimum(lengths, _LONG_BYTES)
        while len(which):
            word = words_at[offset] & _MASKS[np.minimum(remaining, 8)]
            selection = which if words else slice(None)
            mixed = (hashes[selection] ^ word) * _FACTOR
            hashes[selection] = mixed ^ (mixed >> np.uint64(32))
            words.append((selection, word))
            longer = remaining > 8
            which, offset, remaining = which[longer], offset[longer] + 8, remaining[longer] - 8
        return _Strings(lengths, words, hashes * _FACTOR)

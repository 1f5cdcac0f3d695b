"""A hash table of texts that is asked for some hundred thousand at a time, and makes none of them a Python object.

Shapes: Q texts asked for, K texts in the table.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from packlm.text.growing_array import GrowingArray

_FIRST = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
"""Keeps the first `count` of eight bytes."""
_LONG = 128  # bytes of a text that is left to a dict: there are few, and each would take a step for itself for every eight bytes
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio
_FEWEST_SLOTS = 1 << 10


class HashTable:
    """Distinct texts, each in a row: 0, 1, 2 ... in the order in which they came.

    A text is in the slot that its hash says or, where others are in that, in the first free one after it. No more than half are taken.
    """

    def __init__(self) -> None:
        self._slots = np.full(_FEWEST_SLOTS, -1, np.int32)
        """The row of the text in each slot; -1 in a free one."""
        self._long: dict[str, int] = {}
        """The row of each long text; these have no slots."""
        self._hashes = GrowingArray(np.empty(0, np.uint64))
        self._lengths = GrowingArray(np.empty(0, np.int32))
        self._starts = GrowingArray(np.empty(0, np.int64))
        """[K] the index of each text's first eight bytes in what follows."""
        self._eights = GrowingArray(np.empty(0, np.uint64))
        """The bytes of each text (the first of a long one), filled up with nulls to a multiple of eight that is not zero."""

    def __len__(self) -> int:
        return len(self._hashes.values)

    @property
    def num_bytes(self) -> int:
        """Bytes of all texts, about."""
        return self._eights.values.nbytes + sum(map(len, self._long))

    def find(self, values: pa.StringArray) -> np.ndarray:
        """[Q] int64: the row of each text; -1 for one that is not there.

        Of texts of the same hash (two have it once in 2 ** 64) only one is found; none is taken for another.
        """
        rows = np.full(len(values), -1)
        if not len(self):
            return rows
        asked, hashes = _Texts.of(values), self._hashes.values
        left, slots = np.arange(len(values)), self._slots_of(asked.hashes)
        while left.size:
            there = self._slots[slots]
            taken = there >= 0
            left, slots, there = left[taken], slots[taken], there[taken]
            same = hashes[there] == asked.hashes[left]
            rows[left[same]] = there[same]
            left, slots = left[~same], self._next(slots[~same])
        rows[~self._equal(asked, rows)] = -1
        if self._long:
            long = np.flatnonzero(asked.lengths > _LONG)
            rows[long] = [self._long.get(text, -1) for text in values.take(pa.array(long)).to_pylist()]
        return rows

    def add(self, values: pa.StringArray) -> None:
        """Takes in texts that are distinct, and not there yet."""
        added, first = _Texts.of(values), len(self)
        long = np.flatnonzero(added.lengths > _LONG)
        self._long.update(zip(values.take(pa.array(long)).to_pylist(), (first + long).tolist(), strict=True))
        sizes = np.clip(-(-added.lengths.astype(np.int64) // 8), 1, _LONG // 8)
        starts = np.cumsum(sizes) - sizes
        eights = np.empty(int(sizes.sum()), np.uint64)
        for number, (which, eight) in enumerate(added.eights):
            eights[starts[which] + number] = eight
        self._starts.add(starts + len(self._eights.values))
        self._eights.add(eights)
        self._lengths.add(added.lengths)
        self._hashes.add(added.hashes)
        if 2 * len(self) > len(self._slots):
            self._slots, first = np.full(1 << (2 * len(self)).bit_length(), -1, np.int32), 0
        rows = first + np.flatnonzero(self._lengths.values[first:] <= _LONG).astype(np.int32)
        slots = self._slots_of(self._hashes.values[rows])
        while rows.size:
            free = self._slots[slots] < 0
            self._slots[slots[free]] = rows[free]
            left = self._slots[slots] != rows  # of several that came to a free slot the last has it
            rows, slots = rows[left], self._next(slots[left])

    def _slots_of(self, hashes: np.ndarray) -> np.ndarray:
        """The highest bits of hashes, as many as number all slots."""
        return (hashes >> np.uint64(65 - len(self._slots).bit_length())).astype(np.int64)

    def _next(self, slots: np.ndarray) -> np.ndarray:
        return (slots + 1) & (len(self._slots) - 1)

    def _equal(self, asked: "_Texts", rows: np.ndarray) -> np.ndarray:
        """[Q] whether each text is, to the byte, that in the row beside it; whatever, where that is -1."""
        same, starts = self._lengths.values[rows] == asked.lengths, self._starts.values[rows]
        for number, (which, eight) in enumerate(asked.eights):
            same[which] &= self._eights.values.take(starts[which] + number, mode="clip") == eight
        return same


@dataclass(frozen=True)
class _Texts:
    """Texts as numbers of eight bytes each; of long ones, no more than the first `_LONG`."""

    lengths: np.ndarray
    """[Q] int32 bytes."""
    eights: list[tuple[slice | np.ndarray, np.ndarray]]
    """(all texts, their first eight bytes), then (which of them have more, their second eight bytes), and so on."""
    hashes: np.ndarray
    """[Q] uint64."""

    @staticmethod
    def of(values: pa.StringArray) -> "_Texts":
        _, offsets, text = values.buffers()
        bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1] if len(values) else np.zeros(1, np.int32)
        data = np.zeros(int(bounds[-1] - bounds[0]) + 8, np.uint8)
        if len(data) > 8:
            data[:-8] = np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]]
        every = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))  # from each byte on
        lengths = np.diff(bounds)
        eights: list[tuple[slice | np.ndarray, np.ndarray]] = []
        hashes = lengths.astype(np.uint64) * _FACTOR
        which, at, left = np.arange(len(lengths)), bounds[:-1] - bounds[0], np.minimum(lengths, _LONG)
        while len(which):
            eight = every[at] & _FIRST[np.minimum(left, 8)]
            mine = which if eights else slice(None)
            mixed = (hashes[mine] ^ eight) * _FACTOR
            hashes[mine] = mixed ^ (mixed >> np.uint64(32))
            eights.append((mine, eight))
            more = left > 8
            which, at, left = which[more], at[more] + 8, left[more] - 8
        return _Texts(lengths, eights, hashes * _FACTOR)

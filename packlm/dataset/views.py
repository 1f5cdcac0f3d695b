"""The two views of a split as numpy arrays over memory-mapped files: sentences, and one stream of targets.

The files are those of `arrow_cache`. Resident memory is 4 bytes a sentence (its length) and 8 a fixed row (its first target).

Shapes: B sentences or runs of a stream, P targets of all of them, end to end.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from packlm import dataset
from packlm.base.errors import PacklmError
from packlm.dataset.arrow_cache import record_batches

Array = np.ndarray


class Sentences:
    """The sentences of a split: `lengths` [S] tokens of each, `<eos>` included, and their ids."""

    def __init__(self, batches: list[tuple[Array, Array]]):
        """`batches`: (ids [N], offsets [S + 1] into them) of consecutive sentences."""
        self._batches = batches
        self._starts = np.cumsum([0] + [len(offsets) - 1 for _, offsets in batches])
        self.lengths = np.empty(int(self._starts[-1]), np.int32)
        for start, (_, offsets) in zip(self._starts, batches, strict=False):
            np.subtract(offsets[1:], offsets[:-1], out=self.lengths[start : start + len(offsets) - 1], casting="same_kind")
        self.eos = int(batches[0][0][batches[0][1][1] - 1]) if len(self.lengths) else 0
        """The id that ends every sentence, which is also the input before it."""

    @staticmethod
    def from_arrays(ids: Array, ends: Array) -> "Sentences":
        """Sentences in memory: ids [N] end to end, `<eos>` included, and the index `ends` [S] after each sentence."""
        return Sentences([(ids, np.concatenate([[0], ends]))] if len(ends) else [])

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Sentences":
        """The sentences view of a split of a dataset."""
        columns = (batch.column("ids") for batch in record_batches(folder, manifest, "sentences", split))
        sentences = Sentences([(_numpy(column.values), _numpy(column.offsets)) for column in columns])
        if len(sentences) and sentences.lengths.min() < 1:
            raise PacklmError(
                f"{folder}: sentence {int(sentences.lengths.argmin())} of {split} has no tokens, not even its <eos>; build it again"
            )
        _check(sentences.tokens, folder, manifest, "sentences", split)
        return sentences

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    def read(self, indices: Array) -> tuple[Array, Array]:
        """Inputs and targets [P] of sentences, int64: the id before each id (`<eos>` before the first), and the ids."""
        return self.pieces(indices, np.zeros(len(indices), np.int64), self.lengths[indices])

    def ids(self) -> Array:
        """[N] the ids of all sentences, end to end."""
        return self.read(np.arange(len(self)))[1]

    def pieces(self, indices: Array, starts: Array, lengths: Array) -> tuple[Array, Array]:
        """Inputs and targets [P] of the ids [start, start + length) [B] of sentences `indices` [B]."""
        ends = np.cumsum(lengths, dtype=np.int64)
        inputs, targets = np.empty((2, int(ends[-1]) if len(ends) else 0), np.int64)
        batches = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[batches]
        for batch, row, start, end, length in zip(*(column.tolist() for column in (batches, rows, starts, ends, lengths)), strict=True):
            ids, offsets = self._batches[batch]
            first = int(offsets[row]) + start
            targets[end - length : end] = ids[first : first + length]
            inputs[end - length] = ids[first - 1] if start else self.eos
            inputs[end - length + 1 : end] = targets[end - length : end - 1]
        return inputs, targets

    def counts(self, vocab_size: int, rank: int, world: int) -> Array:
        """[V] occurrences of each id in the share of one of `world` ranks: the files' record batches, round robin."""
        counts = np.zeros(vocab_size, np.int64)
        for ids, offsets in self._batches[rank::world]:
            counts += np.bincount(ids[offsets[0] : offsets[-1]], minlength=vocab_size)
        return counts

    def targets(self, index: int) -> Array:
        """The ids of a sentence, as a view."""
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        ids, offsets = self._batches[batch]
        row = index - self._starts[batch]
        return ids[offsets[row] : offsets[row + 1]]


class Stream:
    """A split as one sequence of targets, read from the rows of the fixed view."""

    def __init__(self, batches: list[Array], num_targets: list[Array], opens: Array):
        """`batches`: [R_i, L + 1] consecutive rows; `num_targets`: [R_i]; `opens`: ascending indices of targets that open a document."""
        self._batches = batches
        self._batch_starts = np.cumsum([0] + [len(batch) for batch in batches])
        self._row_starts = np.zeros(int(self._batch_starts[-1]) + 1, np.int64)
        for start, numbers in zip(self._batch_starts, num_targets, strict=False):
            self._row_starts[start + 1 : start + 1 + len(numbers)] = self._row_starts[start] + np.cumsum(numbers)
        self.opens = opens
        self.eos = int(batches[0][0, 0]) if batches else 0
        """The input before the first target."""

    @staticmethod
    def from_arrays(ids: Array, opens: Array, eos: int) -> "Stream":
        """A stream in memory: target ids [N], of which those at `opens` open a document."""
        row = np.concatenate([[eos], ids])[None]
        return Stream([row], [np.array([len(ids)])], np.asarray(opens, np.int64))

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Stream":
        """The fixed view of a split of a dataset."""
        width, start = manifest.length + 1, 0
        batches, num_targets, opens = [], [], []
        for batch in record_batches(folder, manifest, "fixed", split):
            batches.append(_numpy(batch.column("ids").flatten()).reshape(-1, width))
            num_targets.append(_numpy(batch.column("num_targets")))
            begins = batch.column("begins")
            firsts = start + np.cumsum(num_targets[-1], dtype=np.int64) - num_targets[-1]
            opens.append(np.repeat(firsts, np.diff(_numpy(begins.offsets))) + _numpy(begins.flatten()))
            start += int(num_targets[-1].sum(dtype=np.int64))
        stream = Stream(batches, num_targets, np.concatenate(opens))
        _check(len(stream), folder, manifest, "fixed", split)
        return stream

    @staticmethod
    def joined(streams: Sequence["Stream"]) -> "Stream":
        """Streams of rows of any width, one after the other."""
        batches = [batch for stream in streams for batch in stream._batches]
        num_targets = [
            np.diff(stream._row_starts[first : first + len(batch) + 1])
            for stream in streams
            for first, batch in zip(stream._batch_starts.tolist(), stream._batches, strict=False)
        ]
        firsts = np.cumsum([0, *map(len, streams)])
        return Stream(batches, num_targets, np.concatenate([first + stream.opens for first, stream in zip(firsts, streams, strict=False)]))

    def __len__(self) -> int:
        """Targets."""
        return int(self._row_starts[-1])

    @property
    def num_rows(self) -> int:
        return len(self._row_starts) - 1

    def rows(self, numbers: Array) -> tuple[Array, Array]:
        """Targets [start, stop) of fixed rows."""
        return self._row_starts[numbers], self._row_starts[numbers + 1]

    def read(self, starts: Array | int, stops: Array | int) -> tuple[Array, Array]:
        """Inputs and targets [P], int64, of the targets [start, stop) [B]."""
        positions = concatenated_ranges(np.atleast_1d(starts), np.atleast_1d(stops))
        rows = np.searchsorted(self._row_starts, positions, side="right") - 1
        columns = positions - self._row_starts[rows]
        batches = np.searchsorted(self._batch_starts, rows, side="right") - 1
        inputs, targets = np.empty((2, len(positions)), np.int64)
        edges = [0, *(np.flatnonzero(np.diff(batches)) + 1).tolist(), len(batches)]
        for low, high in itertools.pairwise(edges):
            if low < high:
                ids, first = self._batches[batches[low]], self._batch_starts[batches[low]]
                inputs[low:high] = ids[rows[low:high] - first, columns[low:high]]
                targets[low:high] = ids[rows[low:high] - first, columns[low:high] + 1]
        return inputs, targets


def concatenated_ranges(starts: Array, stops: Array) -> Array:
    """[P] the integers of the ranges [start, stop) [B], one range after the other."""
    lengths = stops - starts
    return np.arange(lengths.sum()) + np.repeat(stops - np.cumsum(lengths), lengths)


def _numpy(numbers: pa.Array) -> Array:
    """Arrow's numbers as a view. Not by `to_numpy`, which imports pandas: 0.3 s."""
    return np.from_dlpack(numbers)


def _check(num_tokens: int, folder: Path, manifest: dataset.Manifest, view: dataset.View, split: str) -> None:
    """Raises `PacklmError` unless a view has as many targets as the manifest says."""
    expected = manifest.split(split).tokens
    if num_tokens != expected:
        raise PacklmError(
            f"{folder}: the {view} view of {split} has {num_tokens:,} tokens, the manifest says {expected:,}; build it again with "
            "`packlm preprocess --rebuild`"
        )

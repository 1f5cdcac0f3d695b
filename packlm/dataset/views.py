"""The two views of a split as numpy arrays over memory-mapped files: sentences, and one stream of targets.

`datasets` turns the Parquet shards into an Arrow cache once a node, keyed by the content's digest; what is read from then on are
views of that file. Resident memory is 4 bytes a sentence (its length) and 8 a fixed row (its first target).

Shapes: B sentences or runs of a stream, P targets of all of them, end to end.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from packlm import dataset
from packlm.base.errors import PacklmError

Array = np.ndarray


class Sentences:
    """The sentences of a split: `lengths` [S] tokens of each, `<eos>` included, and their ids."""

    def __init__(self, chunks: list[tuple[Array, Array]]):
        """`chunks`: (ids [N], offsets [S + 1] into them) of consecutive sentences."""
        self._chunks = chunks
        self._starts = np.cumsum([0] + [len(offsets) - 1 for _, offsets in chunks])
        self.lengths = np.empty(int(self._starts[-1]), np.int32)
        for start, (_, offsets) in zip(self._starts, chunks, strict=False):
            np.subtract(offsets[1:], offsets[:-1], out=self.lengths[start : start + len(offsets) - 1], casting="same_kind")
        self.eos = int(chunks[0][0][chunks[0][1][1] - 1]) if len(self.lengths) else 0
        """The id every sentence ends with, which is also what is read before it."""

    @staticmethod
    def from_arrays(ids: Array, ends: Array) -> "Sentences":
        """Sentences in memory: ids [N] end to end, each with its `<eos>`, ending at `ends` [S]."""
        return Sentences([(ids, np.concatenate([[0], ends]))] if len(ends) else [])

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Sentences":
        """The sentences view of a split of a dataset."""
        columns = (batch.column("ids") for batch in _batches(folder, manifest, "sentences", split))
        sentences = Sentences([(column.values.to_numpy(), column.offsets.to_numpy()) for column in columns])
        if len(sentences) and sentences.lengths.min() < 1:
            raise PacklmError(
                f"{folder}: sentence {int(sentences.lengths.argmin())} of {split} has no tokens, not even its <eos>; "
                f"`python -m preprocess verify {folder}` names the damaged file"
            )
        _check(sentences.tokens, folder, manifest, "sentences", split)
        return sentences

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    def read(self, indices: Array) -> tuple[Array, Array]:
        """Inputs and targets [P] of sentences, as int64: what is read before each id (`<eos>` before the first), and the ids."""
        return self.pieces(indices, np.zeros(len(indices), np.int64), self.lengths[indices])

    def pieces(self, indices: Array, starts: Array, lengths: Array) -> tuple[Array, Array]:
        """Inputs and targets [P] of `lengths` [B] ids, from `starts` [B] on, of sentences `indices` [B]."""
        ends = np.cumsum(lengths, dtype=np.int64)
        inputs, targets = np.empty((2, int(ends[-1]) if len(ends) else 0), np.int64)
        chunks = np.searchsorted(self._starts, indices, side="right") - 1
        places = indices - self._starts[chunks]
        for chunk, place, start, end, length in zip(*(column.tolist() for column in (chunks, places, starts, ends, lengths)), strict=True):
            ids, offsets = self._chunks[chunk]
            first = int(offsets[place]) + start
            targets[end - length : end] = ids[first : first + length]
            inputs[end - length] = ids[first - 1] if start else self.eos
            inputs[end - length + 1 : end] = targets[end - length : end - 1]
        return inputs, targets

    def counts(self, vocab_size: int, rank: int, world: int) -> Array:
        """[V] how often each id occurs in the share of one of `world` ranks: the files' own batches in turn."""
        found = np.zeros(vocab_size, np.int64)
        for ids, offsets in self._chunks[rank::world]:
            found += np.bincount(ids[offsets[0] : offsets[-1]], minlength=vocab_size)
        return found

    def targets(self, index: int) -> Array:
        """The ids of a sentence, a view."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        ids, offsets = self._chunks[chunk]
        place = index - self._starts[chunk]
        return ids[offsets[place] : offsets[place + 1]]


class Stream:
    """A split as one sequence of targets, read from the rows of the fixed view."""

    def __init__(self, chunks: list[Array], num_targets: list[Array], opens: Array):
        """`chunks`: [R_i, L + 1] consecutive rows; `num_targets`: [R_i] of each row; `opens`: sorted targets that open a document."""
        self._chunks = chunks
        self._chunk_starts = np.cumsum([0] + [len(chunk) for chunk in chunks])
        self._row_starts = np.zeros(int(self._chunk_starts[-1]) + 1, np.int64)
        for start, numbers in zip(self._chunk_starts, num_targets, strict=False):
            self._row_starts[start + 1 : start + 1 + len(numbers)] = self._row_starts[start] + np.cumsum(numbers)
        self.opens = opens
        self.eos = int(chunks[0][0, 0]) if chunks else 0
        """The id read before the first target."""

    @staticmethod
    def from_arrays(ids: Array, opens: Array, eos: int) -> "Stream":
        """A stream in memory: target ids [N], of which those at `opens` open a document."""
        row = np.concatenate([[eos], ids])[None]
        return Stream([row], [np.array([len(ids)])], np.asarray(opens, np.int64))

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Stream":
        """The fixed view of a split of a dataset."""
        width, start = manifest.length + 1, 0
        chunks, num_targets, opens = [], [], []
        for batch in _batches(folder, manifest, "fixed", split):
            chunks.append(batch.column("ids").flatten().to_numpy().reshape(-1, width))
            num_targets.append(batch.column("num_targets").to_numpy())
            begins = batch.column("begins")
            firsts = start + np.cumsum(num_targets[-1], dtype=np.int64) - num_targets[-1]
            opens.append(np.repeat(firsts, np.diff(begins.offsets.to_numpy())) + begins.flatten().to_numpy())
            start += int(num_targets[-1].sum(dtype=np.int64))
        stream = Stream(chunks, num_targets, np.concatenate(opens))
        _check(len(stream), folder, manifest, "fixed", split)
        return stream

    def __len__(self) -> int:
        """Targets."""
        return int(self._row_starts[-1])

    @property
    def num_rows(self) -> int:
        return len(self._row_starts) - 1

    def rows(self, numbers: Array) -> tuple[Array, Array]:
        """Where fixed rows start and stop: their first targets, and those after their last."""
        return self._row_starts[numbers], self._row_starts[numbers + 1]

    def read(self, starts: Array | int, stops: Array | int) -> tuple[Array, Array]:
        """Inputs and targets [P] of the targets from each of `starts` [B] to before the end in `stops` beside it, as int64."""
        positions = concatenated_ranges(np.atleast_1d(starts), np.atleast_1d(stops))
        rows = np.searchsorted(self._row_starts, positions, side="right") - 1
        columns = positions - self._row_starts[rows]
        chunks = np.searchsorted(self._chunk_starts, rows, side="right") - 1
        inputs, targets = np.empty((2, len(positions)), np.int64)
        edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(chunks)]
        for low, high in itertools.pairwise(edges):
            if low < high:
                ids, first = self._chunks[chunks[low]], self._chunk_starts[chunks[low]]
                inputs[low:high] = ids[rows[low:high] - first, columns[low:high]]
                targets[low:high] = ids[rows[low:high] - first, columns[low:high] + 1]
        return inputs, targets


def concatenated_ranges(starts: Array, stops: Array) -> Array:
    """[P] the whole numbers from each of `starts` to before the end in `stops` beside it, one run after the other."""
    lengths = stops - starts
    return np.arange(lengths.sum()) + np.repeat(stops - np.cumsum(lengths), lengths)


def _check(found: int, folder: Path, manifest: dataset.Manifest, view: dataset.View, split: str) -> None:
    """Whoever trains or measures on a view has as many targets as the manifest says, and none beyond the vocabulary (which the files'
    own statistics tell without reading them); `PacklmError` otherwise."""
    expected = manifest.split(split).tokens
    if found != expected:
        raise PacklmError(
            f"{folder}: the {view} view of {split} has {found:,} tokens, the manifest says {expected:,}; "
            f"`python -m preprocess verify {folder}` names the damaged file"
        )
    for path in dataset.paths(folder, manifest, view, split):
        groups = pq.ParquetFile(path).metadata
        for group in range(groups.num_row_groups):
            statistics = groups.row_group(group).column(0).statistics  # `ids` stands first in both views
            if statistics is not None and statistics.has_min_max and statistics.max >= manifest.vocab_size:
                raise PacklmError(
                    f"{path}: holds the id {statistics.max}, but the vocabulary has {manifest.vocab_size:,}; "
                    f"`python -m preprocess verify {folder}` names what is damaged"
                )


def _batches(folder: Path, manifest: dataset.Manifest, view: dataset.View, split: str) -> Iterator[pa.RecordBatch]:
    """The memory-mapped Arrow batches that `datasets` keeps of a view of a split. One at a time: a table of all of them would take more
    memory than the lengths that are kept."""
    import datasets  # 1 s to import, and only a reader of files needs it

    cache = Path(datasets.config.HF_DATASETS_CACHE) / "packlm" / manifest.digests["content"][:32]
    paths = [str(path.resolve()) for path in dataset.paths(folder, manifest, view, split)]
    datasets.disable_progress_bars()
    builder = datasets.load_dataset_builder("parquet", data_files={split: paths}, cache_dir=str(cache))
    builder.download_and_prepare()
    for path in sorted(Path(builder.cache_dir).glob("*.arrow")):
        with pa.ipc.open_stream(pa.memory_map(str(path))) as batches:
            yield from (batch for batch in batches if batch.num_rows)

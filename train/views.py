"""The two views of a split as numpy arrays over memory-mapped files: sentences, and one stream of targets.

`datasets` turns the Parquet shards into an Arrow cache once a node, keyed by the content's digest; what is read from then on are
views of that file. Resident memory is 4 bytes a sentence (its length) and 8 a fixed row (its first target).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import dataset
from pipeline.errors import PacklmError

Array = np.ndarray


class Sentences:
    """The sentences of a split: `lengths` [S] tokens of each, `<eos>` included, and their ids."""

    def __init__(self, chunks: list[tuple[Array, Array]]):
        """`chunks`: (ids [N], offsets [S + 1] into them) of consecutive sentences."""
        self._chunks = chunks
        self._starts = np.cumsum([0] + [len(offsets) - 1 for _, offsets in chunks])
        self.lengths = np.concatenate([np.diff(offsets).astype(np.int32) for _, offsets in chunks] or [np.zeros(0, np.int32)])
        self.eos = int(chunks[0][0][chunks[0][1][1] - 1]) if len(self.lengths) else 0
        """The id every sentence ends with, which is also what is read before it."""

    @staticmethod
    def from_arrays(ids: Array, ends: Array) -> "Sentences":
        """Sentences in memory: ids [N] end to end, each with its `<eos>`, ending at `ends` [S]."""
        return Sentences([(ids, np.concatenate([[0], ends]))] if len(ends) else [])

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Sentences":
        """The sentences view of a split of a dataset."""
        column = _table(folder, manifest, "sentences", split).column("ids")
        sentences = Sentences([(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in column.chunks if len(chunk)])
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

    def read(self, index: int) -> tuple[Array, Array]:
        """Inputs and targets of a sentence: what is read before each of its ids (`<eos>` before the first), and the ids."""
        targets = self.targets(index)
        return np.concatenate([[self.eos], targets[:-1]]), targets

    def targets(self, index: int) -> Array:
        """The ids of a sentence, a view."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        ids, offsets = self._chunks[chunk]
        place = index - self._starts[chunk]
        return ids[offsets[place] : offsets[place + 1]]


class Stream:
    """A split as one sequence of targets, read from the rows of the fixed view."""

    def __init__(self, chunks: list[Array], num_targets: Array, opens: Array):
        """`chunks`: [R_i, L + 1] consecutive rows; `num_targets`: [R] of each row; `opens`: sorted targets that open a document."""
        self._chunks = chunks
        self._chunk_starts = np.cumsum([0] + [len(chunk) for chunk in chunks])
        self._row_starts = np.concatenate([[0], np.cumsum(num_targets, dtype=np.int64)])
        self.opens = opens
        self.eos = int(chunks[0][0, 0]) if chunks else 0
        """The id read before the first target."""

    @staticmethod
    def from_arrays(ids: Array, opens: Array, eos: int) -> "Stream":
        """A stream in memory: target ids [N], of which those at `opens` open a document."""
        row = np.concatenate([[eos], ids])[None]
        return Stream([row], np.array([len(ids)]), np.asarray(opens, np.int64))

    @staticmethod
    def open(folder: Path, manifest: dataset.Manifest, split: str) -> "Stream":
        """The fixed view of a split of a dataset."""
        table = _table(folder, manifest, "fixed", split)
        width = manifest.length + 1
        chunks = [chunk.flatten().to_numpy().reshape(-1, width) for chunk in table.column("ids").chunks if len(chunk)]
        num_targets = table.column("num_targets").to_numpy()
        begins = table.column("begins").combine_chunks()
        rows = np.repeat(np.arange(len(begins)), np.diff(begins.offsets.to_numpy()))
        firsts = np.concatenate([[0], np.cumsum(num_targets, dtype=np.int64)])
        stream = Stream(chunks, num_targets, firsts[rows] + begins.flatten().to_numpy())
        _check(len(stream), folder, manifest, "fixed", split)
        return stream

    def __len__(self) -> int:
        """Targets."""
        return int(self._row_starts[-1])

    @property
    def num_rows(self) -> int:
        return len(self._row_starts) - 1

    def row(self, number: int) -> tuple[int, int]:
        """The targets [start, stop) of a fixed row."""
        return int(self._row_starts[number]), int(self._row_starts[number + 1])

    def read(self, start: int, stop: int) -> tuple[Array, Array]:
        """Inputs and targets [stop - start] of the targets from `start` to before `stop`, as int64."""
        first = int(np.searchsorted(self._row_starts, start, side="right")) - 1
        inputs, targets = [], []
        while start < stop:
            row_start, row_stop = self.row(first)
            chunk = int(np.searchsorted(self._chunk_starts, first, side="right")) - 1
            ids = self._chunks[chunk][first - self._chunk_starts[chunk]]
            end = min(stop, row_stop)
            inputs.append(ids[start - row_start : end - row_start])
            targets.append(ids[start - row_start + 1 : end - row_start + 1])
            start, first = end, first + 1
        return _joined(inputs), _joined(targets)

    def cuts(self, start: int, stop: int) -> Array:
        """`start`, the document beginnings after it, and `stop`: the ends of the segments from `start` to before `stop`."""
        low, high = np.searchsorted(self.opens, [start + 1, stop])
        return np.concatenate([[start], self.opens[low:high], [stop]])

    def cuts_within(self, starts: Array, stops: Array) -> Array:
        """How many documents begin after each of `starts` and before the end in `stops` beside it."""
        return np.maximum(np.searchsorted(self.opens, stops) - np.searchsorted(self.opens, starts + 1), 0)

    def opens_at(self, position: int) -> bool:
        """Whether the target at `position` opens a document."""
        place = np.searchsorted(self.opens, position)
        return bool(place < len(self.opens) and self.opens[place] == position)


def _joined(parts: list[Array]) -> Array:
    return (np.concatenate(parts) if len(parts) != 1 else parts[0]).astype(np.int64)


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


def _table(folder: Path, manifest: dataset.Manifest, view: dataset.View, split: str) -> pa.Table:
    """The memory-mapped Arrow table that `datasets` keeps of a view of a split."""
    import datasets  # 1 s to import, and only a reader of files needs it

    cache = Path(datasets.config.HF_DATASETS_CACHE) / "packlm" / manifest.digests["content"][:32]
    paths = [str(path.resolve()) for path in dataset.paths(folder, manifest, view, split)]
    datasets.disable_progress_bars()
    data = datasets.load_dataset("parquet", data_files={split: paths}, split=split, cache_dir=str(cache))
    return data.data.table

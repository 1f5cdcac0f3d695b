"""What of the held-out splits stands in the training split too: a model has seen it, and n-grams know it by heart.

    report/overlap.json     for validation and test: the sentences that training has as well, and the share of runs of about eight words

Sentences and runs are compared by 64-bit hashes of their ids. Those of the held-out splits are kept in memory; training is read once.

Shapes: N tokens, S sentences, R runs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from packlm.base import files
from packlm.base.json_models import read
from packlm.dataset import Split

from .report import NAME

FILE = f"{NAME}/overlap.json"
RUN_WORDS = 8
"""Words of a run; shorter ones are phrases that any two texts share."""
MAX_TOKENS = 20_000_000
"""Held-out tokens compared, the first of each split; each takes some 30 bytes of memory."""
_BASE, _MODULUS = 0x9E3779B97F4A7C15, 1 << 64
_INVERSE = pow(_BASE, -1, _MODULUS)
_BATCH = 1 << 12  # sentences read at a time: what is computed of them stays in the cache


@dataclass(frozen=True)
class SplitOverlap:
    """What a held-out split shares with the training split."""

    sentences: int
    """Sentences of the split that training has, too."""
    sentence_share: float
    """Tokens of these sentences, of all its tokens."""
    run_tokens: int
    """Tokens of a run: as many as `RUN_WORDS` words of the training split have on average."""
    run_share: float
    """Runs of the split, at any place, that training has somewhere, too, of all its runs; 0 where it has none."""


def write(folder: Path, splits: Mapping[str, Split]) -> Path:
    """Measures the overlap of a dataset's held-out splits, and writes `overlap.json`; returns its path."""
    files.write_json(folder / FILE, {name: asdict(overlap) for name, overlap in measure(folder, splits).items()})
    return folder / FILE


def load(folder: Path) -> dict[str, SplitOverlap]:
    """What `write` wrote, by split."""
    return read(folder / FILE, dict[str, SplitOverlap])


def measure(folder: Path, splits: Mapping[str, Split]) -> dict[str, SplitOverlap]:
    """The overlap of each held-out split of a dataset."""
    train, held_out = splits["train"], {name: split for name, split in splits.items() if name != "train"}
    run = max(RUN_WORDS, round(RUN_WORDS * train.tokens / max(1, train.words)))
    batches = {name: list(_first(_batches(folder, split), MAX_TOKENS)) for name, split in held_out.items()}
    lengths = {name: np.concatenate([lengths for _, lengths in parts]) for name, parts in batches.items()}
    sentences = {name: _Marks([sentence_hashes(*part) for part in parts]) for name, parts in batches.items()}
    runs = {name: _Marks([run_hashes(ids, run) for ids, _ in parts]) for name, parts in batches.items()}
    del batches
    for ids, sizes in _batches(folder, train) if held_out else ():
        of_sentences, of_runs = sentence_hashes(ids, sizes), run_hashes(ids, run)
        for name in held_out:
            sentences[name].mark(of_sentences)
            runs[name].mark(of_runs)
    return {name: _overlap(sentences[name].marked(), lengths[name], run, runs[name].marked()) for name in held_out}


def _overlap(sentences: np.ndarray, lengths: np.ndarray, run: int, runs: np.ndarray) -> SplitOverlap:
    share = float(lengths[sentences].sum() / lengths.sum())
    return SplitOverlap(int(sentences.sum()), share, run, float(runs.mean()) if len(runs) else 0.0)


def sentence_hashes(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A hash [S] uint64 of each sentence; ids [N] of sentences of these lengths [S], end to end."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return _hashes(ids, ends - lengths, ends)


def run_hashes(ids: np.ndarray, run: int) -> np.ndarray:
    """A hash [R] uint64 of each run of `run` of the ids [N]."""
    count = max(0, len(ids) - run + 1)
    return _hashes(ids, slice(count), slice(run, run + count)) if count else np.empty(0, np.uint64)


def _hashes(ids: np.ndarray, starts: np.ndarray | slice, ends: np.ndarray | slice) -> np.ndarray:
    """For each [start, end) the sum over j of (ids[start + j] + 1) times base^j, modulo 2^64: from sums up to each place."""
    sums = np.zeros(len(ids) + 1, np.uint64)
    np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * _powers(_BASE, len(ids)), out=sums[1:])
    return (sums[ends] - sums[starts]) * _powers(_INVERSE, len(ids) + 1)[starts]


def _powers(base: int, count: int) -> np.ndarray:
    """base^0, ..., base^(count - 1), modulo 2^64."""
    return _all_powers(base, 1 << count.bit_length())[:count]


@lru_cache(maxsize=4)
def _all_powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


class _Marks:
    """Hashes, and which of them have been seen elsewhere."""

    def __init__(self, hashes: Sequence[np.ndarray]):
        self._unique, self._inverse = np.unique(np.concatenate(hashes), return_inverse=True)
        self._seen = np.zeros(len(self._unique), bool)
        # Most hashes of the training split are in no held-out one; a table by their first bits says so at once.
        self._shift = np.uint64(64 - min(max(16, len(self._unique).bit_length() + 4), 28))
        self._table = np.zeros(1 << (64 - int(self._shift)), bool)
        self._table[self._unique >> self._shift] = True

    def mark(self, hashes: np.ndarray) -> None:
        """Marks these."""
        candidates = hashes[self._table[hashes >> self._shift]]
        places = np.searchsorted(self._unique, candidates)
        places[places == len(self._unique)] = 0
        self._seen[places[self._unique[places] == candidates]] = True

    def marked(self) -> np.ndarray:
        """For each of the hashes whether it was marked."""
        return self._seen[self._inverse]


def _batches(folder: Path, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids [N], lengths [S]) of consecutive sentences of a split."""
    for file in split.files["sentences"]:
        with pq.ParquetFile(folder / file) as shard:
            for batch in shard.iter_batches(_BATCH, columns=["ids"]):
                column = batch.column("ids")
                yield column.flatten().to_numpy(), column.value_lengths().to_numpy()


def _first(batches: Iterable[tuple[np.ndarray, np.ndarray]], tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches until they have this number of tokens."""
    for ids, lengths in batches:
        yield ids, lengths
        tokens -= len(ids)
        if tokens <= 0:
            return

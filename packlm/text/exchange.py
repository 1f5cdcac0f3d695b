"""What the processes that encode a corpus tell each other: a chunk that one of them has encoded, the others need not.

A folder with a file for each lot of chunks. Whoever is slow to look, or does not, encodes more itself, and gets the same ids.

Shapes: K chunks of a lot, N ids of all of them.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from packlm.base import files

_FEWEST = 1 << 12  # chunks that are worth it: fewer are encoded sooner than written, found and read
_MOST_LOTS = 4  # read at a time: where many processes give, they give much the same


class Lot(NamedTuple):
    """Chunks and what they become."""

    texts: pa.StringArray
    """[K]"""
    ids: np.ndarray
    """[N] end to end."""
    lengths: np.ndarray
    """[K] int64 how many ids belong to each."""


class Exchange:
    """The folder, as one process sees it. All of them have the same tokenizer."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._seen: set[str] = set()

    def give(self, lot: Lot) -> None:
        """Lets the others have a lot, unless it is too small."""
        if len(lot.texts) < _FEWEST:
            return
        after = np.concatenate([[0], np.cumsum(lot.lengths)]).astype(np.int32)
        batch = pa.record_batch({"texts": lot.texts, "ids": pa.ListArray.from_arrays(after, lot.ids)})
        name = f"{os.getpid()}-{len(self._seen)}"
        self._seen.add(name)
        with files.atomic(self._folder / name) as stream, pa.ipc.new_file(stream, batch.schema) as writer:
            writer.write_batch(batch)

    def take(self, wanted: int) -> Iterator[Lot]:
        """What others have given since it was last asked, or some of it; nothing if but few chunks are `wanted`."""
        if wanted < _FEWEST:
            return
        new = {name for name in os.listdir(self._folder) if not name.startswith(".")} - self._seen
        self._seen |= new
        for name in islice(new, _MOST_LOTS):
            with pa.OSFile(str(self._folder / name)) as stream:
                batch = pa.ipc.open_file(stream).get_batch(0)
            ids = batch.column("ids")
            yield Lot(batch.column("texts"), ids.flatten().to_numpy(), ids.value_lengths().to_numpy().astype(np.int64))

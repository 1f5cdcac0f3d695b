"""The work folder of a build, beside the dataset's folder: what an interrupted run has completed stays in it for the next run.

.NAME.lock                        locked while a process works on the dataset; there as long as that, or until the next run
.NAME.building/downloads/         sources from standard input or the Hugging Face hub
.NAME.building/KEY/               everything made from one configuration and corpus; KEY is a digest of these, and of library versions
    extracted/                    cleaned documents
    counts/                       word or character counts of the training split
    shards/                       records and measures of finished shards
    dataset/                      the dataset, until it is complete and takes the place of the old one
    executor/                     logs of datatrove
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from packlm import dataset
from packlm.base import files

from .provenance import Provenance

_LIBRARIES = ("tokenizers", "pyarrow", "sentencex", "matplotlib", "charset-normalizer")
"""Libraries of which another version may make other bytes."""


@contextmanager
def locked(dataset_folder: Path) -> Iterator[None]:
    """Locks the dataset's folder against other processes; completes a replacement of it, and removes what a repair left, if interrupted.

    Raises:
        PacklmError: another process has the lock.
    """
    dataset_folder = files.followed(dataset_folder)
    with files.lock(dataset_folder.with_name(f".{dataset_folder.name}.lock"), what=dataset_folder):
        files.recover_folder(dataset_folder)
        files.remove_temporaries(dataset_folder)
        yield


@dataclass(frozen=True)
class WorkFolder:
    """The work folder of one dataset."""

    dataset_folder: Path

    @property
    def root(self) -> Path:
        return self.dataset_folder.with_name(f".{self.dataset_folder.name}.building")

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    def open(self, provenance: Provenance) -> Path:
        """Creates or finds the folder KEY; deletes those of other keys, and temporary files of killed processes."""
        versions = [dataset.VERSION, *map(version, _LIBRARIES)]
        key = files.digest([provenance.settings, dataset.corpus_digest(provenance.corpus), versions])[:16]
        folder = self.root / key
        if self.root.exists():
            for other in self.root.iterdir():
                if other not in (folder, self.downloads):
                    shutil.rmtree(other)
            files.remove_temporaries(folder)
        for name in ("extracted", "counts", "shards", "dataset", "executor"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return folder

    def delete(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

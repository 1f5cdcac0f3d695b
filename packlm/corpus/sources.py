"""Sources and parts: what is read, and under which name.

A source is one file, or one document in memory. A part is a range of a source that begins where a document begins: several processes
can read the parts of one file and together give its documents, names and counts.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packlm.base import regular_files
from packlm.base.errors import PacklmError

Compression = Literal["gz", "zst"]
State = tuple[int, int]
"""Size of a file in bytes and its modification time in nanoseconds, which differ once the file has been written to."""


@dataclass(frozen=True)
class Source:
    """A file, or a document in memory (`data`), under the name that goes into the dataset."""

    name: str
    path: Path | None = None
    data: bytes | None = None
    format: str = "text"
    """Key of `formats.FORMATS`."""
    compression: Compression | None = None
    encoding: str = "utf-8"
    """Encoding of its text, as `transcoding.codec` names it."""
    label: str = ""
    """Its name in messages, if that is not its path."""

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.label or str(self.path or self.name)

    def open(self) -> io.BufferedIOBase:
        """Opens its bytes; `PacklmError` naming the file if it cannot be read or, by now, is no regular file."""
        return io.BytesIO(self.data or b"") if self.path is None else regular_files.open_binary(self.path)

    def state(self) -> State:
        """The state of its file, `PacklmError` if that is gone; for a document in memory, its size and a hash."""
        if self.path is None:
            data = self.data or b""
            return len(data), int.from_bytes(hashlib.sha256(data).digest()[:8])
        status = self._stat(self.path)
        return status.st_size, status.st_mtime_ns

    def fingerprint(self) -> list[str | int]:
        """Values that differ once it has been renamed or written to, even with its modification time set back (st_ctime cannot be set)."""
        if self.path is None:
            return [self.name, *self.state()]
        status = self._stat(self.path)
        return [self.name, str(self.path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def _stat(self, path: Path) -> os.stat_result:
        try:
            return path.stat()
        except OSError as error:
            raise PacklmError(f"{self.where}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Part:
    """A range of a source that begins where a document begins."""

    source: Source
    start: int
    stop: int
    """Bytes [start, stop) of the source; of Parquet, row groups [start, stop)."""
    number: int
    """Number of its first line (of Parquet, row) in the source, from 1."""
    size: int
    """Its bytes in the file; of Parquet, those of its text before compression."""

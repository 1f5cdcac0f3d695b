"""The finished records of a batch job, kept until the job is done: a killed job resumes with the records that are missing.

    .OUT.parts/inputs.json   what the job depends on (`packlm.base.completion`): records of other inputs are dropped
              /rank-00000    a line for each record that this rank has finished: checksum, number, record

Lines are on the disk before the next batch begins. A line that a kill cut short fails its checksum, and its record is generated again.
"""

import glob
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from packlm.base import completion, files, regular_files


class Journal:
    """The finished records of a job; each rank appends to its own file and reads those of all."""

    def __init__(self, out: Path):
        """`out`: the result file of the job."""
        self.out = out
        self.folder = out.with_name(f".{out.name}.parts")

    def begin(self, inputs: Mapping[str, Any]) -> None:
        """One rank, before any other call: drops the records of other inputs, and temporary files of a killed job."""
        for temporary in self.out.parent.glob(f".{glob.escape(self.out.name)}.*.tmp"):
            temporary.unlink()
        record = self.folder / "inputs.json"
        if not completion.is_complete(record, inputs):
            shutil.rmtree(self.folder, ignore_errors=True)
            completion.write(record, inputs, [])

    def done(self) -> set[int]:
        """The numbers of all finished records."""
        return {number for path in self._paths() for number, _, _ in _intact_lines(path)}

    @contextmanager
    def writer(self, rank: int) -> Iterator[IO[bytes]]:
        """The file that a rank appends to, cut back to its last intact line."""
        path = self.folder / f"rank-{rank:05d}"
        end = max((offset + length for _, offset, length in _intact_lines(path)), default=0) if path.exists() else 0
        with files.naming(path), open(path, "ab") as stream:
            stream.truncate(end)
            yield stream

    def records(self) -> Iterator[tuple[int, str]]:
        """All finished records in the order of their numbers, each once; only their offsets are held in memory."""
        index = {
            number: (file, offset, length)
            for file, path in enumerate(self._paths())
            for number, offset, length in _intact_lines(path)
        }  # fmt: skip
        with ExitStack() as stack:
            streams = [stack.enter_context(open(path, "rb")) for path in self._paths()]
            for number in sorted(index):
                file, offset, length = index[number]
                streams[file].seek(offset)
                yield number, streams[file].read(length).split(b" ", 2)[2].decode().rstrip("\n")

    def remove(self) -> None:
        """Removes the journal, once the result is written."""
        shutil.rmtree(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("rank-*"))


def append(stream: IO[bytes], records: Iterable[tuple[int, str]]) -> None:
    """Writes (number, record) lines and syncs them to the disk; a record is one line of text."""
    for number, record in records:
        line = f"{number} {record}\n".encode()
        stream.write(b"%08x " % zlib.crc32(line) + line)
    stream.flush()
    os.fsync(stream.fileno())


def _intact_lines(path: Path) -> Iterator[tuple[int, int, int]]:
    """(number, offset, length in bytes) of each line, up to the first that fails its checksum."""
    offset = 0
    with regular_files.open_binary(path) as lines:
        for line in lines:
            checksum, _, rest = line.partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(rest):
                return
            yield int(rest.partition(b" ")[0]), offset, len(line)
            offset += len(line)

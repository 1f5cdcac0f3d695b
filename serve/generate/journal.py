"""What a batch job has finished, kept until all of it is done, so that a job that was killed goes on where it was.

    .OUT.parts/key          what is being made of what: a digest
              /rank-00000   a line for each record that this rank has made: checksum, number, record

A line is on the disk before the next batch begins. One that was cut short by a kill fails its checksum and is made again.
"""

import glob
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from packlm.base import files


class Journal:
    """The finished records of a job; each rank writes a file of its own and all may be read."""

    def __init__(self, out: Path):
        """`out`: the file that the job makes."""
        self.out = out
        self.folder = out.with_name(f".{out.name}.parts")

    def begin(self, key: str) -> None:
        """One rank, before any other call: throws away what was made of something else than `key` says, and what a kill left of `out`."""
        for left in self.out.parent.glob(f".{glob.escape(self.out.name)}.*.tmp"):
            left.unlink()
        noted = self.folder / "key"
        if not (noted.is_file() and noted.read_text(encoding="utf-8") == key):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            files.write_text(noted, key)

    def done(self) -> set[int]:
        """The numbers of all finished records."""
        return {number for path in self._paths() for number, _, _ in _whole_lines(path)}

    @contextmanager
    def writer(self, rank: int) -> Iterator[IO[bytes]]:
        """The file that a rank appends to, without what a kill left incomplete at its end."""
        path = self.folder / f"rank-{rank:05d}"
        end = max((place + length for _, place, length in _whole_lines(path)), default=0) if path.exists() else 0
        with open(path, "ab") as stream:
            stream.truncate(end)
            yield stream

    def records(self) -> Iterator[tuple[int, str]]:
        """All finished records in the order of their numbers, each once; memory holds their places alone."""
        places = {
            number: (index, place, length)
            for index, path in enumerate(self._paths())
            for number, place, length in _whole_lines(path)
        }  # fmt: skip
        with ExitStack() as stack:
            streams = [stack.enter_context(open(path, "rb")) for path in self._paths()]
            for number in sorted(places):
                index, place, length = places[number]
                streams[index].seek(place)
                yield number, streams[index].read(length).split(b" ", 2)[2].decode().rstrip("\n")

    def remove(self) -> None:
        """Once the whole file is there."""
        shutil.rmtree(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("rank-*"))


def append(stream: IO[bytes], records: Iterable[tuple[int, str]]) -> None:
    """Puts (number, record) lines on the disk; a record is one line of text."""
    for number, record in records:
        line = f"{number} {record}\n".encode()
        stream.write(b"%08x " % zlib.crc32(line) + line)
    stream.flush()
    os.fsync(stream.fileno())


def _whole_lines(path: Path) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, bytes) of each line, up to the first that is not as it was written."""
    place = 0
    with open(path, "rb") as lines:
        for line in lines:
            checksum, _, rest = line.partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(rest):
                return
            yield int(rest.partition(b" ")[0]), place, len(line)
            place += len(line)

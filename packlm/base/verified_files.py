"""Files that are held against their known SHA-256 before they are used.

Hashing takes as long as reading. So that only the first opening of a large file pays for it, the result is remembered in a folder of the
caller's, by everything that changes when a file is written to or exchanged.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from packlm.base import files, regular_files
from packlm.base.errors import PacklmError


class Damaged(PacklmError):
    """A file is missing, or is not the one that is expected."""


def read(path: Path, sha256: str) -> bytes:
    """The bytes of a file: those that were checked.

    Raises:
        Damaged: the file is missing, or has another digest.
    """
    with open_checked(path, sha256) as stream:
        return stream.read()


def open_checked(path: Path, sha256: str) -> BufferedReader:
    """Opens a file once its content has been checked. The stream stays on that content if `path` becomes another file.

    Raises:
        Damaged: the file is missing, or has another digest.
    """
    try:
        stream = regular_files.open_binary(path)
    except PacklmError as error:
        raise Damaged(str(error)) from None
    try:
        compare(path, sha256, hashlib.file_digest(stream, "sha256").hexdigest())
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def compare(path: Path, expected: str, actual: str) -> None:
    """Raises `Damaged` if the SHA-256 of a file's content is another than is expected."""
    if actual != expected:
        raise Damaged(f"{path}: damaged or exchanged: expected sha256 {expected}, got {actual}")


def check(digests: Mapping[Path, str], memory: Path) -> list[tuple[int, ...]]:
    """Checks files that are to be opened by their paths; returns the state of each (`states`), which differs once it is another file.

    Args:
        digests: the SHA-256 expected of each file.
        memory: a folder in which the result is remembered.

    Raises:
        Damaged: a file is missing, or has another digest.
    """
    return [_check(path, sha256, memory) for path, sha256 in digests.items()]


def digests(paths: Iterable[Path], memory: Path) -> dict[Path, str]:
    """The SHA-256 of each file, remembered as that of a file that was checked."""
    digests = {}
    for path in paths:
        state = _state(path)
        digests[path] = files.sha256(path)
        _remember(path, digests[path], state, memory)
    return digests


def states(paths: Mapping[Path, str]) -> list[tuple[int, ...]]:
    """Device, inode, size, and times of modification and change of each file, in nanoseconds. Nobody can set the time of change."""
    return [_state(path) for path in paths]


def _check(path: Path, sha256: str, memory: Path) -> tuple[int, ...]:
    state = _state(path)
    with suppress(OSError, ValueError):
        if _entry(path, sha256, memory).read_text(encoding="ascii") == _line(state):
            return state
    open_checked(path, sha256).close()
    if _state(path) != state:
        raise Damaged(f"{path}: was written to or exchanged while it was being read; run the same command again")
    _remember(path, sha256, state, memory)
    return state


def _remember(path: Path, sha256: str, state: tuple[int, ...], memory: Path) -> None:
    with suppress(PacklmError):  # then the next opening checks it again
        files.write_text(_entry(path, sha256, memory), _line(state))


def _entry(path: Path, sha256: str, memory: Path) -> Path:
    return memory / hashlib.sha256(f"{os.path.realpath(path)}\n{sha256}".encode(errors="surrogateescape")).hexdigest()[:32]


def _line(state: tuple[int, ...]) -> str:
    return " ".join(map(str, state))


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

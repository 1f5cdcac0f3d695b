"""Reads regular files and nothing else: opening a FIFO waits for a writer, and a device may have no end.

Whatever somebody names on a command line or puts into a folder is opened here, and its size is known before it is read.
"""

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from packlm.base.errors import PacklmError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LIMIT = 1 << 26
"""Default limit of `read`, in bytes (64 MiB): settings, JSON files and prompts are far smaller."""

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def open_binary(path: Path) -> BufferedReader:
    """Opens a regular file (or a link to one) for reading; never waits.

    Raises:
        PacklmError: there is none, it is something else, or it cannot be read; names the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # NUL, or a lone surrogate that no file system name has
        raise PacklmError(f"{shown(path)}: not a path: it holds a NUL or a character that no file name can have") from None
    except OSError as error:
        kind = _kind(path)
        reason = f"it is {kind}, not a regular file" if kind else error.strerror
        raise PacklmError(f"{shown(path)}: cannot be read: {reason}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise PacklmError(
            f"{shown(path)}: {_KINDS.get(stat.S_IFMT(mode), 'something')}, not a regular file; name a file that can be read again"
        )
    return BufferedReader(_NamedFile(descriptor, path))


def read(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises as `open_binary`, and for a larger file, which is not read."""
    with open_binary(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise PacklmError(f"{shown(path)}: {max(size, len(content)):,} bytes, and at most {limit:,} are read; is it the right file?")
    return content


def read_text(path: Path, limit: int = LIMIT) -> str:
    """As `read`, decoded from UTF-8; a `PacklmError` names the first invalid byte."""
    try:
        return read(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PacklmError(f"{shown(path)}: not UTF-8 text (byte {error.start:,}: 0x{error.object[error.start]:02x})") from None


def shown(path: Path) -> str:
    """A path in a message: as it is, or quoted with escapes if a line feed or the like would break the line."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


class _NamedFile(FileIO):
    """An open file that says which it is when it cannot be read, as on a damaged disk."""

    def __init__(self, descriptor: int, path: Path):
        super().__init__(descriptor)
        self._path = path

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise PacklmError(f"{shown(self._path)}: cannot be read: {error.strerror}") from None

    def readall(self) -> bytes:
        try:
            return super().readall() or b""
        except OSError as error:
            raise PacklmError(f"{shown(self._path)}: cannot be read: {error.strerror}") from None


def _kind(path: Path) -> str | None:
    """What a path that cannot be opened is (opening a socket is an error), if it is no regular file."""
    try:
        return _KINDS.get(stat.S_IFMT(Path(path).stat().st_mode))
    except OSError:
        return None

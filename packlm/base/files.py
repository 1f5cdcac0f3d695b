"""Atomic writes, digests, and a lock file that names its holder."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from packlm.base import json_text
from packlm.base.errors import PacklmError


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` if the block succeeds.

    File and folder are synced to disk first; after an exception or a crash `path` is unchanged.

    Raises:
        PacklmError: the file cannot be written, or the disk is full; names the path and the free space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    newline = None if "b" in mode else "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=encoding, newline=newline) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # the folder may be a file
            temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free
            raise PacklmError(f"{path}: the disk is full ({free:,} bytes free); free some space and run the same command again") from error
        raise PacklmError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` atomically, as indented JSON in the order of its keys; `PacklmError` if a number in it is not finite."""
    try:
        text = json_text.dumps(value, indent=2)
    except ValueError as error:
        raise PacklmError(f"{path}: not written: {error}") from None
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises `PacklmError` with file and position if it is not JSON."""
    try:
        return json_text.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PacklmError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PacklmError(f"{path}: not valid JSON ({error}); the file is damaged or was written by another program") from error


def fsync_folder(folder: Path) -> None:
    """Syncs a folder's entries (created or renamed files) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def replace_folder(new: Path, old: Path) -> None:
    """Replaces folder `old` by `new`. After a crash between the two renames, `recover_folder` restores `old`."""
    aside = _aside(old)
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        os.rename(old, aside)
    os.rename(new, old)
    fsync_folder(old.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undoes a `replace_folder` that crashed between its two renames."""
    if _aside(folder).exists() and not folder.exists():
        os.rename(_aside(folder), folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


@contextmanager
def lock(path: Path, what: Path | None = None) -> Iterator[None]:
    """Holds the lock file `path` during the block. The kernel releases it when its holder dies, so a stale file blocks nobody.

    Args:
        path: the lock file.
        what: the path named in the error message. Default: the folder of the lock file.

    Raises:
        PacklmError: another process holds the lock; names that process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "an unnamed process"
            raise PacklmError(f"{what or path.parent}: in use by {holder}; wait for it to end, or stop it") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield
        stream.truncate(0)

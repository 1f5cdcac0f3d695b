"""Files that are either whole or absent: atomic writes, digests, and a lock that names its holder."""

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

from packlm.base.errors import PacklmError


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path` and renames it onto `path` once the block has ended well.

    Whatever the block writes is on the disk (fsync of file and folder) before the name changes; after an exception or a
    crash `path` is as it was. A full disk raises `PacklmError` with the path and the bytes that are free.
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
        with suppress(OSError):  # as where its folder is a file
            temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free
            raise PacklmError(f"{path}: the disk is full ({free:,} bytes free); make room and run it again") from error
        raise PacklmError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` atomically, as indented JSON with its keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises `PacklmError` naming the file and the place where it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PacklmError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PacklmError(f"{path}: not JSON ({error}); it was damaged or written by something else") from error


def read_json_if_there(path: Path) -> dict[str, Any]:
    """`read_json` of a file that holds an object; an empty one where there is no file."""
    return read_json(path) if path.exists() else {}


def fsync_folder(folder: Path) -> None:
    """Puts a folder's entries (names just made or replaced) on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def replace_folder(new: Path, old: Path) -> None:
    """Puts folder `new` in the place of `old`, in whole. After a crash between the two renames, `recover_folder` brings `old` back."""
    aside = _aside(old)
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        os.rename(old, aside)
    os.rename(new, old)
    fsync_folder(old.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undoes a `replace_folder` that a crash left between its two renames."""
    if _aside(folder).exists() and not folder.exists():
        os.rename(_aside(folder), folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


@contextmanager
def lock(path: Path, what: Path | None = None) -> Iterator[None]:
    """Holds the lock file `path` for the block; raises `PacklmError` naming the process that holds it otherwise.

    `what` is what the message says to be in use; the folder of the lock file unless given.

    The kernel lets go of the lock when its holder dies, so a stale file left by a crash stops nobody.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "an unnamed process"
            raise PacklmError(f"{what or path.parent}: in use by {holder}; wait for it, or stop it") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield
        stream.truncate(0)

"""Atomic writes, digests, and a lock file that names its holder."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from packlm.base import json_text, regular_files
from packlm.base.errors import PacklmError, reason


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` if the block succeeds.

    File and folder are synced to disk first; after an exception or a crash `path` is unchanged. The temporary file has a fixed name and is
    locked, so the next writer of `path` waits for this one, or takes over what a killed one left. A symbolic link is followed. What is
    not a file (`is_stream`) is written to as it is.

    Raises:
        PacklmError: the file cannot be written, or the disk is full; names the path and the free space.
    """
    path = Path(path)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    with naming(path):
        if is_stream(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)  # an error for a FIFO that nobody reads, not a wait
            os.set_blocking(descriptor, True)
            with open(descriptor, mode, encoding=encoding, newline=newline) as stream:
                yield stream
            return
        path = followed(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_of(path)
        descriptor = _open_locked(temporary, fcntl.LOCK_EX)
        try:
            with open(descriptor, mode, encoding=encoding, newline=newline) as stream:
                stream.truncate(0)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an `OSError` in writing `path` or making its folders into a `PacklmError` that names it; one about another file passes."""
    try:
        yield
    except OSError as error:
        names = {name for place in (path, followed(path)) for name in (place, temporary_of(place), *place.parents)}
        if error.filename is not None and Path(error.filename) not in names:
            raise
        raise PacklmError(f"{path}: {_refusal(path, error)}") from error


def _refusal(path: Path, error: OSError) -> str:
    if error.errno != errno.ENOSPC or is_stream(path):
        return f"cannot be written: {reason(error)}"
    free = "?"
    with suppress(OSError):
        free = f"{shutil.disk_usage(followed(path).parent).free:,}"
    return f"the disk is full ({free} bytes free); free some space and run the same command again"


def is_stream(path: Path) -> bool:
    """Whether a path is a device, a FIFO, a socket or an open file of this process, which no other file can take the place of."""
    if str(path).startswith(("/dev/std", "/dev/fd/", "/proc/self/fd/")):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def followed(path: Path) -> Path:
    """Where a symbolic link leads; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114 (no error for a name that is too long)


def user_cache() -> Path:
    """The folder of what is kept for this user between runs, and can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "packlm"


def temporary_of(path: Path) -> Path:
    """What a file or folder is called until it is complete."""
    return path.parent / f".{path.name}.tmp"


def remove_temporaries(folder: Path) -> None:
    """Removes what killed processes left in a folder or below it; under the lock of the folder."""
    for temporary in [*folder.rglob(".*.tmp")]:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


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
    """Reads a JSON file; raises `PacklmError` with file and position if it is not JSON, or no regular file (`regular_files`)."""
    text = regular_files.read_text(Path(path))
    try:
        return json_text.loads(text)
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
    """The SHA-256 of a regular file, in hexadecimal; raises as `regular_files.open_binary`."""
    with regular_files.open_binary(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def replace_folder(new: Path, old: Path) -> None:
    """Replaces folder `old` by `new`. After a crash between the two renames, `recover_folder` restores `old`."""
    with naming(old):
        aside = _aside(old)
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists():
            os.rename(old, aside)
        os.rename(new, old)
        fsync_folder(old.parent)
        shutil.rmtree(aside, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undoes a `replace_folder` that crashed between its two renames, and removes the old folder where it crashed after them."""
    aside = _aside(folder)
    if aside.exists() and folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        os.rename(aside, folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


@contextmanager
def lock(path: Path, what: Path | None = None) -> Iterator[None]:
    """Holds the lock file `path` during the block, and removes it at the end.

    The kernel releases the lock when its holder dies, so the file that a killed process leaves blocks nobody.

    Args:
        path: the lock file.
        what: the path named in the error message. Default: the folder of the lock file.

    Raises:
        PacklmError: another process holds the lock (names that process), or the file cannot be written.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = _open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = ""
            with suppress(OSError):  # its holder has just removed it
                holder = path.read_text(encoding="utf-8").strip()
            raise PacklmError(f"{what or path.parent}: in use by {holder or 'another process'}; wait for it to end, or stop it") from None
    try:
        with suppress(OSError):  # on a full disk the holder has no name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            if _is_open_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def remove_stale_lock(path: Path) -> None:
    """Removes the lock file that a killed process has left; leaves that of a running one."""
    if path.exists():
        with suppress(PacklmError), lock(path):
            pass


def _open_locked(path: Path, operation: int) -> int:
    """Opens a file, made if there is none, and locks it; anew where another process renamed or removed it before it was locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            if _is_open_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

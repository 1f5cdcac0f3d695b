"""Which files a place means: a file, a folder searched recursively, or a glob.

Names depend neither on the machine nor on the order in which a file system lists its entries: a file found in a folder is
named from that folder on (`articles/a/1.txt`), a file given by itself is `1.txt`. Nothing is opened here.
"""

import glob
import os
import stat
from pathlib import Path

from packlm.base.errors import RequestError


def files(place: str) -> list[tuple[str, Path]]:
    """(name, path) of every file at `place`, sorted by name; hidden ones are left out, unless given by themselves.

    Raises:
        RequestError: nothing there; something that is no regular file; links that go round in circles.
    """
    root = Path(place)
    if os.path.lexists(root):
        found = {root.name: root} if not root.is_dir() else _walk(root, root.name, ())
    elif glob.has_magic(place):
        parts = Path(place).parts
        base = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        found = {}
        for match in glob.glob(place, recursive=True):
            path = Path(match)
            name = "/".join([*Path(base.name).parts, *path.relative_to(base).parts])
            found |= _walk(path, name, ()) if path.is_dir() else {name: path}
    else:
        raise RequestError(f"{place}: there is no such file or folder")
    if not found:
        raise RequestError(f"{place}: no files here (hidden ones are left out)")
    return [(name, _checked(name, found[name])) for name in sorted(found)]


def _walk(folder: Path, name: str, above: tuple[tuple[int, int], ...]) -> dict[str, Path]:
    """Name -> path of every file below `folder` that is not hidden; `above` identifies the folders on the way here."""
    try:
        here = folder.stat()
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise RequestError(f"{folder}: cannot be read: {error.strerror}") from None
    above = (*above, (here.st_dev, here.st_ino))
    if above[-1] in above[:-1]:
        raise RequestError(f"{folder}: a symbolic link that leads back to a folder above it")
    found: dict[str, Path] = {}
    for entry in entries:
        path, inner = folder / entry, f"{name}/{entry}" if name else entry
        if not entry.startswith("."):
            found |= _walk(path, inner, above) if path.is_dir() else {inner: path}
    return found


def _checked(name: str, path: Path) -> Path:
    try:
        name.encode()
        mode = path.stat().st_mode  # stat and not open: opening a FIFO would wait for a writer
    except UnicodeEncodeError:
        raise RequestError(f"{path!r}: its name is not UTF-8; rename it") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: not a regular file")
    return path

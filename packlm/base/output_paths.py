"""Paths that a user names for results: refused before any work where they cannot be written.

Folders that the program owns (`run.dir`, `dataset.dir`) are made; one that a result is to be put into must be there.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from packlm.base import files
from packlm.base.errors import RequestError, reason

Name = str | Path | None
"""A path as the user gave it; None or `-` if it is none."""


def check(outputs: Mapping[str, Name], inputs: Iterable[Name] = ()) -> None:
    """Checks the files that a command is to write.

    Args:
        outputs: option -> file.
        inputs: the files that it reads.

    Raises:
        RequestError: a file cannot be made there, is a folder, or is the input or another output.
    """
    taken = [(Path(str(name)), "the input") for name in inputs if _is_path(name)]
    for option, name in outputs.items():
        if not _is_path(name):
            continue
        path = Path(str(name))
        _check(f"{option} {name}", path, is_folder=False)
        for other, what in taken:
            if not files.is_stream(path) and os.path.realpath(path) == os.path.realpath(other):
                raise RequestError(f"{option} {name} would write over {what}: give another path")
        taken.append((path, f"{option} {name}"))


def check_folder(option: str, name: str | Path) -> None:
    """Checks a folder that a command is to write files into; `RequestError` if it cannot be made."""
    _check(f"{option} {name}", Path(name), is_folder=True)


def check_model_folder(option: str, name: str | Path, source: Name = None) -> None:
    """Checks a model folder that a command is to write, which may take the place of another one.

    Raises:
        RequestError: it cannot be made, is a folder of something else, or is `source`, the model that the command reads.
    """
    check_folder(option, name)
    path = Path(name)
    if source is not None and path.exists() and os.path.realpath(path) == os.path.realpath(str(source)):
        raise RequestError(f"{option} {name} would write over the model that it is made from: give another path")
    if path.is_dir() and any(path.iterdir()) and not (path / "config.json").is_file():
        raise RequestError(f"{option} {name}: this folder has files and is no model folder; give another path")


def _is_path(name: Name) -> bool:
    return name is not None and str(name) != "-"


def _check(option: str, path: Path, is_folder: bool) -> None:
    try:
        if files.is_stream(path):
            if is_folder or not os.access(path, os.W_OK):
                raise RequestError(f"{option}: cannot be written; give another path")
            return
        target = files.followed(path)
        if target.is_dir() and not is_folder:
            raise RequestError(f"{option} is a folder; give the name of a file")
        if target.exists() and is_folder and not target.is_dir():
            raise RequestError(f"{option} is a file; give the name of a folder")
        folder = target if target.is_dir() else target.parent
        if not folder.is_dir():
            raise RequestError(f"{option}: there is no folder {folder}; make it first, or correct the path")
        files.temporary_of(target).exists()  # an error if the name is too long
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(f"{option}: cannot be written: {reason(error)}") from None

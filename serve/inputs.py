"""The files that a command reads: those that it is given, and all those of folders, sorted by name."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from packlm.base import regular_files
from packlm.base.errors import PacklmError, RequestError

STANDARD_INPUT = "-"


def names(words: Sequence[str]) -> list[str]:
    """The files that `--input` names, each of which could be opened.

    Raises:
        RequestError: one cannot be read; a folder without files; standard input together with files.
    """
    expanded = [name for word in words for name in (_files_of(Path(word)) if word != STANDARD_INPUT and Path(word).is_dir() else [word])]
    if len(expanded) > 1 and STANDARD_INPUT in expanded:
        raise RequestError("standard input (-) cannot be read together with files; name it alone")
    for name in expanded:
        if name != STANDARD_INPUT:
            open_file(name).close()
    return expanded


def open_file(name: str) -> IO[bytes]:
    """Opens a regular file, or a copy of standard input (`-`) in a temporary file: some files are read twice."""
    try:
        if name != STANDARD_INPUT:
            return regular_files.open_binary(Path(name))
    except PacklmError as error:
        raise RequestError(str(error)) from None
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    shutil.copyfileobj(sys.stdin.buffer, copy)
    copy.seek(0)
    return copy


def _files_of(folder: Path) -> list[str]:
    """The files below a folder that are not hidden."""
    paths = [
        path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise RequestError(f"{folder}: no files in it (hidden ones are ignored)")
    return [str(path) for path in sorted(paths)]

"""Finds the sources of a corpus: files, folders, globs, standard input, Hugging Face datasets, and what a format provides itself.

Names depend neither on the machine nor on the order in which a file system lists its entries: a file found in a folder is named from
that folder on (`articles/a/1.txt`), a file given by itself is `1.txt`.
"""

import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from packlm.base.errors import RequestError
from packlm.config import Corpus
from packlm.corpus import bad_files, formats, remote
from packlm.corpus.bad_files import listed
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import codec

_NUMBER = re.compile(r":[1-9][0-9]*\Z")
"""What the names of a source's documents end in if it has several."""


def find(locations: Sequence[str], rules: Corpus, split: str, downloads: Path) -> list[Source]:
    """The sources at some locations, in the order of the locations, sorted by name within each.

    Args:
        locations: files, folders, globs, `hub:NAME[:CONFIG[:SPLIT]]`, `-`, or a name that the format of `rules` knows (`python`).
        split: the split they are for, which is also the one read of a hub dataset that names none.
        downloads: folder for copies of standard input and hub datasets.

    Raises:
        RequestError: nothing there; not a regular file; links in a loop; files that cannot be read in their format; a dataset that cannot
            be loaded or lacks the column; standard input more than once.
        PacklmError: a file that cannot be read.
    """
    if rules.format != "auto" and (provided := formats.FORMATS[rules.format].sources(locations)) is not None:
        return provided
    everywhere = [*rules.train, *rules.validation, *rules.test]
    if locations.count("-") > 1 or (tuple(locations) == getattr(rules, split, None) and "-" in locations and everywhere.count("-") > 1):
        raise RequestError("corpus: standard input (-) is named more than once, and can be read only once; save it to a file")
    found, problems = list[Source](), list[str]()
    for location in locations:
        for source, setting in _find(location, rules, split, downloads):
            try:
                found.append(formats.open_source(source, setting) if setting else source)
            except RequestError as error:
                problems.append(str(error))
    if problems:
        raise RequestError(listed(f"{len(problems):,} files cannot be read", problems))
    return bad_files.with_encodings(found) if rules.encoding == "auto" else found


def check_unique(splits: dict[str, list[Source]], rules: Corpus) -> None:
    """Raises `RequestError` if two documents would share a name, or one file occurs twice, in a split or in two of them."""
    by_name: dict[str, tuple[str, Source]] = {}
    by_path: dict[tuple[int, int] | str, tuple[str, Source]] = {}
    for split, sources in splits.items():
        for source in sources:
            first_split, first = by_path.setdefault(_identity(source), (split, source))
            if first is not source and (source.path is None or _same_path(first, source)):
                raise RequestError(f"{source.where}: given twice, in corpus.{first_split} (as {first.where}) and in corpus.{split}")
            first_split, first = by_name.setdefault(source.name, (split, source))
            if first is not source:
                raise RequestError(
                    f"two documents would be called {source.name!r}: {first.where} in corpus.{first_split} and {source.where} in "
                    f"corpus.{split}; rename one, or give the folder above them"
                )
    for name, (split, source) in by_name.items():
        first_split, first = by_name.get(_NUMBER.sub("", name), (split, source))
        if first is not source and formats.is_numbered(first, rules) and not formats.is_numbered(source, rules):
            raise RequestError(
                f"two documents would be called {name!r}: one of {first.where} in corpus.{first_split}, whose documents are numbered, and "
                f"{source.where} in corpus.{split}; rename one"
            )


def _identity(source: Source) -> tuple[int, int] | str:
    """Device and inode of a file, which several paths may have; of a document in memory, or a file that is gone, its name."""
    try:
        status = source.path.stat() if source.path else None
    except OSError:
        status = None
    return (status.st_dev, status.st_ino) if status else source.name


def _same_path(first: Source, second: Source) -> bool:
    """Whether two sources are the same path after following links; two hard links are two files."""
    return os.path.realpath(str(first.path)) == os.path.realpath(str(second.path))


def _find(location: str, rules: Corpus, split: str, downloads: Path) -> Iterator[tuple[Source, str]]:
    """(source, the setting of its format; empty if it has its format)."""
    encoding = codec(rules.encoding)
    if location == "-":
        path = downloads / "stdin"
        remote.copy_standard_input(path)
        yield Source("stdin", path, encoding=encoding, label="standard input"), rules.format
    elif location.startswith("hub:"):
        dataset = remote.parse_hub(location, split)
        key = repr(([dataset.address, dataset.config, dataset.split], rules.text_field))
        path = downloads / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl"
        remote.download_hub(location, dataset, rules.text_field, path)
        yield Source(dataset.name, path, format="jsonl", label=location), ""
    else:
        for name, path in list_files(location):
            yield Source(name, path, encoding=encoding), rules.format


def list_files(location: str) -> list[tuple[str, Path]]:
    """(name, path) of every file at a path or glob, sorted by name, without opening any; hidden files only if named themselves.

    Raises:
        RequestError: nothing there; something that is no regular file; links in a loop.
    """
    root = Path(location)
    if os.path.lexists(root):
        paths = {root.name: root} if not root.is_dir() else _walk(root, root.name, ())
    elif glob.has_magic(location):
        base = Path(*root.parts[: next(index for index, part in enumerate(root.parts) if glob.has_magic(part))])
        paths = {}
        for match in map(Path, glob.glob(location, recursive=True)):
            name = "/".join([*Path(base.name).parts, *match.relative_to(base).parts])
            paths |= _walk(match, name, ()) if match.is_dir() else {name: match}
    else:
        raise RequestError(f"{location}: no such file or folder")
    if not paths:
        raise RequestError(f"{location}: no files found (hidden files are ignored)")
    for name, path in paths.items():
        _check_file(name, path)
    return sorted(paths.items())


def _walk(folder: Path, name: str, parents: tuple[tuple[int, int], ...]) -> dict[str, Path]:
    """Name -> path of every file below `folder` that is not hidden; `parents` are the (device, inode) of the folders above."""
    try:
        status = folder.stat()
        with os.scandir(folder) as unsorted:  # unlike a list of names, it knows which are folders
            entries = sorted(unsorted, key=lambda entry: entry.name)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be read: {error.strerror}") from None
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        raise RequestError(f"{folder}: a symbolic link that leads back to a folder above it")
    paths: dict[str, Path] = {}
    for entry in entries:
        path, inner = folder / entry.name, f"{name}/{entry.name}" if name else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and path.is_dir()):
            paths |= _walk(path, inner, (*parents, identity))
        else:
            paths[inner] = path
    return paths


def _check_file(name: str, path: Path) -> None:
    try:
        name.encode()
        mode = path.stat().st_mode  # stat and not open: opening a FIFO would wait for a writer
    except UnicodeEncodeError:
        raise RequestError(f"{path!r}: its name is not UTF-8; rename it") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: not a regular file")

"""Sources and documents: which files there are, what they are called, and the text of each document in them.

A source is one file (or one document made on the spot). Names, and so ids and order, depend neither on the machine nor on the
order in which a file system lists its entries: a file found in a folder is named from that folder on (`articles/a/1.txt`), a
file given by itself is `1.txt`, and line 17 of it, where lines are documents, is `1.txt:17`.
"""

import glob
import hashlib
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.config import Corpus
from pipeline.dataset import EOS, UNK
from pipeline.errors import PacklmError, RequestError
from preprocess import builtin

BOM = b"\xef\xbb\xbf"
_SPELLED_EOS = re.compile(rf"(?<!\S){EOS}(?!\S)")
_REMEDY = "change it, or go on with --corpus.on_bad_text replace or skip"


@dataclass(frozen=True)
class Source:
    """A file, or a document made on the spot (`data`), under the name that goes into the dataset."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """The bytes as a stream; `PacklmError` naming the file where it cannot be read."""
        if self.path is None:
            return io.BytesIO(self.data or b"")
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise PacklmError(f"{self.path}: cannot be read: {error.strerror}") from None

    def state(self) -> tuple[int, int]:
        """(size, time of the last change in nanoseconds): differs once somebody has written to the file."""
        if self.path is None:
            return len(self.data or b""), 0
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns


class Document(NamedTuple):
    """A document's name and text, and where it begins in its source: byte offset and line number, from 1."""

    name: str
    text: str
    offset: int
    line: int


def find(places: Sequence[str], rules: Corpus) -> list[Source]:
    """The sources at `places` (files, folders, globs), in the order given, sorted by name within each.

    Raises:
        RequestError: nothing there; something that is no regular file; links that go round in circles.
    """
    if rules.format == "builtin":
        if tuple(places) != ("python",):
            raise RequestError(f'corpus.format = "builtin" has one corpus, "python"; got {", ".join(places)}')
        return [Source(name, data=text.encode()) for name, text in builtin.documents()]
    return [source for place in places for source in _find(place)]


def _find(place: str) -> list[Source]:
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
    return [_checked(name, found[name]) for name in sorted(found)]


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


def _checked(name: str, path: Path) -> Source:
    try:
        name.encode()
        mode = path.stat().st_mode  # stat and not open: opening a FIFO would wait for a writer
    except UnicodeEncodeError:
        raise RequestError(f"{path!r}: its name is not UTF-8; rename it") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: not a regular file")
    return Source(name, path)


def refuse_repeats(splits: dict[str, list[Source]]) -> None:
    """Raises `RequestError` where two sources have one name, or one file is given twice, in a split or in two of them."""
    names: dict[str, tuple[str, Source]] = {}
    places: dict[str, tuple[str, Source]] = {}
    for split, sources in splits.items():
        for source in sources:
            where = str(source.path or source.name)
            other = places.setdefault(os.path.realpath(where) if source.path else where, (split, source))
            if other[1] is not source:
                raise RequestError(f"{where}: given twice, in corpus.{other[0]} (as {other[1].path}) and in corpus.{split}")
            other = names.setdefault(source.name, (split, source))
            if other[1] is not source:
                raise RequestError(
                    f"two documents would be called {source.name!r}: {other[1].path} in corpus.{other[0]} and {where} in corpus.{split}; "
                    "rename one, or give the folder above them"
                )


def read(
    source: Source, rules: Corpus, spelled_eos: bool, counts: Counter[str],
    offset: int = 0, line: int = 1, content: "hashlib._Hash | None" = None,
) -> Iterator[Document]:  # fmt: skip
    """The documents of a source, in order, cleaned as `rules` say; whatever is skipped, replaced or dropped is counted.

    Args:
        spelled_eos: whether the tokenizer would take a word spelled `<eos>` for the special token (true at word level).
        counts: reason -> how often; added to.
        offset, line: where to begin, in bytes and lines, in a file of lines (what `Document` told about a document).
        content: a hash to feed with every byte that is read.

    Raises:
        PacklmError: text that is not UTF-8, or a spelled `<eos>`, under on_bad_text = "error"; a file that cannot be read.
    """
    with source.open() as stream:
        stream.seek(offset)
        for data in [stream.read()] if rules.document == "file" else stream:
            if content is not None:
                content.update(data)
            name = source.name if rules.document == "file" else f"{source.name}:{line}"
            text = _decode(data, source, offset, line, rules, counts)
            text = text if text is None else _clean(text, source, line, rules, spelled_eos, counts)
            if text is not None:
                yield Document(name, text, offset, line)
            offset += len(data)
            line += 1


def texts(places: Sequence[str], rules: Corpus, spelled_eos: bool, counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of every document at `places`: plain text files as `preprocess` reads them, for whoever has no dataset."""
    sources = find(places, rules)
    refuse_repeats({"text": sources})
    for source in sources:
        for document in read(source, rules, spelled_eos, counts):
            yield document.name, document.text


def _decode(data: bytes, source: Source, offset: int, line: int, rules: Corpus, counts: Counter[str]) -> str | None:
    """The text of a document, without a byte order mark; None where the document is to be skipped."""
    start = len(BOM) if offset == 0 and data.startswith(BOM) else 0
    if start:
        counts["byte order marks dropped"] += 1
    try:
        return data[start:].decode()
    except UnicodeDecodeError as error:
        if rules.on_bad_text == "error":
            line += data.count(b"\n", 0, start + error.start)
            place = f"{source.path or source.name}: not UTF-8 at byte offset {offset + start + error.start}, line {line}"
            bad = data[start:][error.start : error.end].hex(" ")
            raise PacklmError(f"{place} (byte {bad}); {_REMEDY}") from None
    if rules.on_bad_text == "skip":
        counts["documents skipped that are not UTF-8"] += 1
        return None
    text = data[start:].decode(errors="replace")
    counts["bad byte sequences replaced by U+FFFD"] += text.count("\ufffd") - data.count("\ufffd".encode())
    return text


def _clean(text: str, source: Source, line: int, rules: Corpus, spelled_eos: bool, counts: Counter[str]) -> str | None:
    """Drops lines and applies the rules to what is left; None where nothing is, or the document is to be skipped."""
    if rules.drop_lines:
        before, text = text, _drop_lines(text, rules.drop_lines, counts)
        if rules.document == "line" and before and not text:
            return None
    if not text or text.isspace():
        counts["empty documents skipped"] += 1
        return None
    if not spelled_eos or not (found := _SPELLED_EOS.search(text)):
        return text
    if rules.on_bad_text == "error":
        at = line + text.count("\n", 0, found.start())
        raise PacklmError(f"{source.path or source.name}: line {at} has a word spelled {EOS}, which is the end of a sentence; {_REMEDY}")
    if rules.on_bad_text == "skip":
        counts[f"documents skipped that have a word spelled {EOS}"] += 1
        return None
    text, replaced = _SPELLED_EOS.subn(UNK, text)
    counts[f"words spelled {EOS} replaced by {UNK}"] += replaced
    return text


def _drop_lines(text: str, patterns: Sequence[str], counts: Counter[str]) -> str:
    kept = []
    for whole in io.StringIO(text, newline="\n"):
        line = whole.strip()
        pattern = next((pattern for pattern in patterns if re.fullmatch(pattern, line)), None)
        if pattern is None:
            kept.append(whole)
        else:
            counts[f"lines dropped by {pattern!r}"] += 1
    return "".join(kept)

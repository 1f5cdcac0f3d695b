"""Sources: which files there are, what they are called, the digests of their bytes, and the parts they are read in.

A source is one file, or one document made on the spot. A part is a stretch of a source that begins where a document begins,
so that the parts of one file can be read by several processes and give the documents, names and counts of the whole.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus import builtin, remote
from packlm.corpus import paths as corpus_paths
from packlm.corpus.transcoding import as_text, codec, cuts_at_line_feeds

Kind = Literal["text", "jsonl", "csv", "parquet"]
_BLOCK = 1 << 22
_HASHED = 1 << 18  # bytes digested and counted while they are in the processor's cache
_KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_COMPRESSIONS: dict[str, Literal["gz", "zst"]] = {".gz": "gz", ".zst": "zst"}
_ASCII_SPACE = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"


State = tuple[int, int]
"""Size of a file and time of its last change in nanoseconds: another once somebody has written to it."""


def state_of(found: os.stat_result) -> State:
    """The state of a file, from what the system says of it."""
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Source:
    """A file, or a document made on the spot (`data`), under the name that goes into the dataset."""

    name: str
    path: Path | None = None
    data: bytes | None = None
    kind: Kind = "text"
    compression: Literal["gz", "zst"] | None = None
    encoding: str = "utf-8"
    """Encoding of its text, as Python's codec of it is called."""
    shown: str = ""
    """What messages call it, where that is not its path."""

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.shown or str(self.path or self.name)

    @property
    def delimiter(self) -> str:
        """What lies between two fields of a row."""
        name = self.name.lower().removesuffix(".gz").removesuffix(".zst")
        return "\t" if name.endswith(".tsv") else ","

    @property
    def plain(self) -> bool:
        """Whether its bytes are its text, in UTF-8."""
        return self.kind == "text" and self.compression is None and self.encoding == "utf-8"

    def open(self) -> BinaryIO:
        """The bytes as a stream; `PacklmError` naming the file where it cannot be read."""
        if self.path is None:
            return io.BytesIO(self.data or b"")
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise PacklmError(f"{self.where}: cannot be read: {error.strerror}") from None

    def open_parquet(self, field: str) -> pq.ParquetFile:
        """The source as Parquet; `PacklmError` where it is damaged, or has no column `field` of strings."""
        with self.open():
            pass  # says who may not read it
        try:
            file = pq.ParquetFile(self.path, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise PacklmError(f"{self.where}: damaged, or no Parquet file: {error}") from None
        schema = file.schema_arrow
        if field not in schema.names:
            file.close()
            there = ", ".join(map(repr, schema.names))
            raise PacklmError(f"{self.where}: no column {field!r}; there are {there}; name one with --corpus.text_field")
        kind = schema.field(field).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            file.close()
            raise PacklmError(f"{self.where}: column {field!r} holds {kind}, not strings; name another with --corpus.text_field")
        return file

    def state(self) -> State:
        """The state of its file, `PacklmError` if that is gone; of a document made on the spot, its size and a hash."""
        if self.path is None:
            data = self.data or b""
            return len(data), int.from_bytes(hashlib.sha256(data).digest()[:8])
        return state_of(self._stat(self.path))

    def marks(self) -> list[str | int]:
        """What is another once somebody has renamed it or written to it, even secretly: the last time here is one that nobody can set."""
        if self.path is None:
            return [self.name, *self.state()]
        found = self._stat(self.path)
        return [self.name, str(self.path), *state_of(found), found.st_ctime_ns]

    def _stat(self, path: Path) -> os.stat_result:
        try:
            return path.stat()
        except OSError as error:
            raise PacklmError(f"{self.where}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Part:
    """A stretch of a source; a document begins where it begins."""

    source: Source
    start: int
    stop: int
    """Bytes [start, stop) of the source; of Parquet, row groups [start, stop)."""
    number: int
    """Number of its first line (of Parquet, row) in the source, from 1."""
    size: int
    """Its bytes in the file; of Parquet, those of its text before compression."""


def find(given: Sequence[str], rules: Corpus, split: str, spool: Path) -> list[Source]:
    """The sources at the places `given`, in the order given, sorted by name within each; what comes from elsewhere is put into `spool`.

    Args:
        given: files, folders, globs, `hub:NAME[:CONFIG[:SPLIT]]`, `-`; with rules.format = "builtin", `python`.
        split: the split they are given for; of a hub data set, the one that is read unless another is named.

    Raises:
        RequestError: nothing there; something that is no regular file; links that go round in circles; a data set that cannot be had
            or has no such column; standard input more than once.
    """
    if rules.format == "builtin":
        if tuple(given) != ("python",):
            raise RequestError(f'corpus.format = "builtin" has one corpus, "python"; got {", ".join(given)}')
        return [Source(name, data=text.encode()) for name, text in builtin.documents()]
    everywhere = [*rules.train, *rules.validation, *rules.test]
    if given.count("-") > 1 or (tuple(given) == getattr(rules, split, None) and "-" in given and everywhere.count("-") > 1):
        raise RequestError("corpus: standard input (-) is given more than once, and can be read only once; save it to a file")
    return [source for place in given for source in _find(place, rules, split, spool)]


def _find(place: str, rules: Corpus, split: str, spool: Path) -> Iterator[Source]:
    if place == "-":
        path = spool / "stdin"
        remote.standard_input(path)
        yield Source("stdin", path, kind=_kind(path, rules)[0], encoding=codec(rules.encoding), shown="standard input")
    elif place.startswith("hub:"):
        name, *address = remote.hub_name(place, split)
        path = spool / f"{hashlib.sha256(repr((address, rules.text_field)).encode()).hexdigest()[:16]}.jsonl"
        remote.hub(place, split, rules.text_field, path)
        yield Source(name, path, kind="jsonl", shown=place)
    else:
        for name, path in corpus_paths.files(place):
            kind, compression = _kind(path, rules)
            yield Source(name, path, kind=kind, compression=compression, encoding=codec(rules.encoding))


def _kind(path: Path, rules: Corpus) -> tuple[Kind, Literal["gz", "zst"] | None]:
    *before, last = ["", *(suffix.lower() for suffix in path.suffixes)]
    compression = _COMPRESSIONS.get(last)
    if compression:
        last = before[-1]
    kind = _KINDS.get(last, "text") if rules.format == "auto" or rules.format == "builtin" else rules.format
    if kind == "parquet" and compression:
        raise RequestError(f"{path}: a compressed Parquet file cannot be read in parts; unpack it (Parquet is compressed in itself)")
    return kind, compression


def refuse_repeats(splits: dict[str, list[Source]]) -> None:
    """Raises `RequestError` where two sources have one name, or one file is given twice, in a split or in two of them."""
    names: dict[str, tuple[str, Source]] = {}
    there: dict[str, tuple[str, Source]] = {}
    for split, sources in splits.items():
        for source in sources:
            other = there.setdefault(os.path.realpath(source.path) if source.path else source.name, (split, source))
            if other[1] is not source:
                raise RequestError(f"{source.where}: given twice, in corpus.{other[0]} (as {other[1].where}) and in corpus.{split}")
            other = names.setdefault(source.name, (split, source))
            if other[1] is not source:
                raise RequestError(
                    f"two documents would be called {source.name!r}: {other[1].where} in corpus.{other[0]} and {source.where} in "
                    f"corpus.{split}; rename one, or give the folder above them"
                )


def survey(source: Source, rules: Corpus, part_bytes: int = 1 << 25) -> Iterator[Part | str]:
    """Reads all bytes of a source once. Yields its parts in order, together the whole, each before it is read; last the bytes' SHA-256.

    Lines, paragraphs, what begins at a pattern, and JSONL are cut, in encodings whose line feeds can be told without decoding; Parquet at
    row groups, so that no part but the last has fewer than `part_bytes`. Anything else is one part. Memory: a block, or the longest line.

    Raises:
        PacklmError: a file that cannot be read; Parquet that is damaged or has no such column.
    """
    try:
        if source.kind == "parquet":
            yield from _row_groups(source, rules, part_bytes)
        size, content, number = source.state()[0], hashlib.sha256(), 1
        bounds = [0, *_cuts(source, rules, part_bytes), size]
        with source.open() as stream:
            for start, stop in pairwise(bounds):
                if source.kind != "parquet":
                    yield Part(source, start, stop, number, stop - start)
                for block in _blocks(stream, stop - start):
                    content.update(block)
                    if stop < size:  # many short lines: numpy counts them three times as fast as `bytes.count`
                        number += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))
    except OSError as error:
        raise PacklmError(f"{source.where}: cannot be read: {error.strerror}") from None
    yield content.hexdigest()


def whole(source: Source, rules: Corpus) -> Part:
    """The source as one part, without reading it."""
    if source.kind != "parquet":
        size = source.state()[0]
        return Part(source, 0, size, 1, size)
    return next(_row_groups(source, rules, 1 << 62))


def _blocks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes, or what is left."""
    while size > 0 and (block := stream.read(min(size, _HASHED))):
        size -= len(block)
        yield block


def has_cuts(source: Source, rules: Corpus) -> bool:
    """Whether the bytes of a source can be cut where a document begins; Parquet is cut at row groups instead."""
    whole_files = source.kind == "text" and rules.document == "file"
    return not (source.kind in ("csv", "parquet") or whole_files or source.compression) and cuts_at_line_feeds(source.encoding)


def _cuts(source: Source, rules: Corpus, part_bytes: int) -> list[int]:
    """Bytes at which the parts after the first begin."""
    if not has_cuts(source, rules):
        return []
    cuts = [0]
    size = source.state()[0]
    with source.open() as stream:
        while (target := (cuts[-1] // part_bytes + 1) * part_bytes) < size:
            found = _document_from(stream, source, target, rules)
            if found is None or found >= size:
                break
            cuts.append(found)
    return cuts[1:]


def _document_from(stream: BinaryIO, source: Source, target: int, rules: Corpus) -> int | None:
    """The first byte at or after `target` at which a document begins; None where none does."""
    stream.seek(target - 1)
    by = "line" if source.kind == "jsonl" else rules.document
    # Lines longer than a document may be end in an error when they are read.
    limit = rules.max_document_bytes + 1
    position = _line_of(stream, target - 1, limit) if by == "paragraph" else target - 1 + _length(stream)
    if by == "line":
        return position
    matches = re.compile(rules.document_pattern).fullmatch
    while line := stream.readline(limit):
        if by == "pattern" and matches(as_text(line, source.encoding).strip()):
            return position
        position += len(line)
        if by == "paragraph" and not line.strip(_ASCII_SPACE):
            return position
    return None


def _length(stream: BinaryIO) -> int:
    """Bytes up to and with the next line feed, or the end."""
    length = 0
    while line := stream.readline(_BLOCK):
        length += len(line)
        if line.endswith(b"\n"):
            break
    return length


def _line_of(stream: BinaryIO, position: int, limit: int) -> int:
    """The byte at which the line of byte `position` begins; the stream stands there afterwards."""
    low = position
    while low > 0 and position - low < limit:
        step = min(low, 1 << 12)
        stream.seek(low - step)
        before = stream.read(step).rfind(b"\n")
        if before >= 0:
            low += before + 1 - step
            break
        low -= step
    stream.seek(low)
    return low


def _row_groups(source: Source, rules: Corpus, part_bytes: int) -> Iterator[Part]:
    with source.open_parquet(rules.text_field) as file:
        about = file.metadata
        column = about.schema.names.index(rules.text_field)
        start, first, size, rows = 0, 1, 0, 1
        for group in range(about.num_row_groups):
            size += about.row_group(group).column(column).total_uncompressed_size
            rows += about.row_group(group).num_rows
            if size >= part_bytes:
                yield Part(source, start, group + 1, first, size)
                start, first, size = group + 1, rows, 0
        if start < about.num_row_groups or not start:
            yield Part(source, start, about.num_row_groups, first, size)

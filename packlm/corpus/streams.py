"""Streams of a part: its bytes, decompressed and as UTF-8, in blocks; and its lines."""

import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain

import numpy as np

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.encodings import likely
from packlm.corpus.file_kinds import looks_like
from packlm.corpus.sources import Part, Source
from packlm.corpus.transcoding import ENCODING_REMEDY, NotEncoded, label, to_utf8

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 1 << 22
"""Bytes read at a time, and about the bytes of a block of documents."""

_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 16  # bytes decompressed at a time
_DAMAGED = (EOFError, OSError, zlib.error, zstd.ZstdError)
_WINDOW_LOG = 31
"""Binary logarithm of the largest window of zstd: up to 2 GiB of memory, and only for files that were compressed with one so large."""


@dataclass(frozen=True)
class Lines:
    """L >= 1 whole lines; only the last of a part can lack its line feed."""

    data: bytes
    ends: np.ndarray
    """[L] int64: index in `data` after each line."""
    number: int
    """Number of the first line in the source, from 1."""
    offset: int | None
    """Byte of the (decompressed) source at which they begin; None if the source is not UTF-8."""

    @property
    def starts(self) -> np.ndarray:
        """[L] int64: index in `data` of each line's first byte."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])


def not_encoded(source: Source, position: str, data: bytes, text: bytes) -> NotEncoded:
    """The error of bytes that are not in the encoding of their source; `text`: those around them, which tell what the file is."""
    note = looks_like(text) or f", likely {label(likely(text))}"
    return NotEncoded(f"{source.where}: not {label(source.encoding)} at {position} (byte {data.hex(' ')}){note}; {ENCODING_REMEDY}")


def too_long(source: Source, position: str, rules: Corpus) -> PacklmError:
    """The error of a document longer than the rules allow; `position` says where it begins."""
    return PacklmError(
        f"{source.where}: {position}: a document longer than corpus.max_document_bytes = {rules.max_document_bytes:,}; split it "
        "(corpus.document), remove it, or raise --corpus.max_document_bytes (memory: several times as much)"
    )


def utf8(part: Part, rules: Corpus, counts: Counter[str]) -> tuple[int | None, Iterator[bytes]]:
    """(byte at which the text begins, None unless the source is UTF-8; blocks of the text as UTF-8). A byte order mark is dropped, counted.

    Bytes that are not in the source's encoding raise `NotEncoded` under on_bad_text = "error", otherwise become bytes that are not UTF-8.
    """
    source, offset, data = part.source, part.start, blocks(part)
    if source.encoding != "utf-8":
        data = to_utf8(data, source.encoding, rules.on_bad_text == "error", source.where, offset, part.number)
    if part.start == 0:
        first = b""
        while len(first) < len(_BOM) and (block := next(data, None)) is not None:
            first += block
        if first.startswith(_BOM):
            counts["byte order marks dropped"] += 1
            first, offset = first[len(_BOM) :], len(_BOM)
        data = chain([first], data)
    return offset if source.encoding == "utf-8" else None, data


def lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[Lines]:
    """The lines of a part; `PacklmError` if one is longer than a document may be."""
    offset, utf8_blocks = utf8(part, rules, counts)
    number, limit = part.number, rules.max_document_bytes
    tail: list[bytes] = []  # the beginning of a line whose end has not been read
    tail_size = 0
    for block in chain(utf8_blocks, [None]):
        cut = 0 if block is None else block.rfind(b"\n") + 1
        if cut or block is None:
            data = b"".join([*tail, block[:cut]] if block is not None else tail)
            if data:
                ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
                if block is None:
                    ends = np.append(ends, len(data))
                if (is_long := np.diff(ends, prepend=0) > limit).any():
                    raise too_long(part.source, f"line {number + int(is_long.argmax())}", rules)
                yield Lines(data, ends, number, offset)
                number += len(ends)
                offset = None if offset is None else offset + len(data)
            tail, tail_size = [], 0
        if block is not None:
            tail.append(block[cut:])
            tail_size += len(block) - cut
            if tail_size > limit:
                raise too_long(part.source, f"line {number}", rules)


def head(source: Source, size: int) -> bytes:
    """The first bytes of a source, decompressed; fewer than `size` if it is shorter, or damaged after them."""
    data = b""
    with source.open() as file, suppress(*_DAMAGED):
        read = _reader(file, source)
        while len(data) < size and (piece := read(size - len(data))):
            data += piece
    return data


def blocks(part: Part) -> Iterator[bytes]:
    """The bytes of a part, decompressed, in blocks of `BLOCK`; the last is shorter.

    Raises:
        PacklmError: the file cannot be read, is damaged, or has become shorter.
    """
    source, position = part.source, part.start
    with source.open() as file:
        try:
            file.seek(position)
            if source.compression is None:
                while position < part.stop and (block := file.read(min(BLOCK, part.stop - position))):
                    position += len(block)
                    yield block
            elif not part.stop:
                raise EOFError("the file is empty")
            else:
                read = _reader(file, source)
                while block := _read_block(read):
                    position += len(block)
                    yield block
                position = part.stop
        except _DAMAGED as error:
            if source.compression is None:
                raise PacklmError(f"{source.where}: cannot be read after {position:,} bytes: {error}") from None
            good = _good_bytes(source, position)
            raise PacklmError(
                f"{source.where}: damaged or truncated: {error}; {good:,} bytes of text could be read before; replace the file"
            ) from None
    if position < part.stop:
        problem = f"ends after {position:,} bytes and had {part.stop:,} before"
        raise PacklmError(f"{source.where}: {problem}: changed while it was being read; run the same command again")


def _reader(file: BufferedIOBase, source: Source) -> Callable[[int], bytes]:
    """A function that reads some decompressed bytes, at most as many as it is told and none at the end, and loses none to an error."""
    if source.compression == "gz":
        return gzip.GzipFile(fileobj=file).read1
    if source.compression == "zst":
        return zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}).read1
    return file.read


def _read_block(read: Callable[[int], bytes]) -> bytes:
    """The next `BLOCK` bytes; fewer only at the end."""
    pieces: list[bytes] = []
    missing = BLOCK
    while missing and (piece := read(min(missing, _PIECE))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _good_bytes(source: Source, count: int) -> int:
    """How many bytes a damaged file can be decompressed to, of which `count` are known to be good. The last ones are read one by one."""
    for size in (_PIECE, 1):
        good = 0
        with source.open() as file, suppress(*_DAMAGED):
            read = _reader(file, source)
            while piece := read(min(count - good, _PIECE) if good < count else size):
                good += len(piece)
        count = max(count, good)
    return count

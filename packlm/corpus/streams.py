"""Streams of a part: its bytes, decompressed and as UTF-8, in blocks; and its lines."""

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain

import numpy as np
import pyarrow as pa

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.sources import Part, Source
from packlm.corpus.transcoding import label, to_utf8

BLOCK = 1 << 22
"""Bytes read at a time, and about the bytes of a block of documents."""

_BOM = b"\xef\xbb\xbf"
_DAMAGED = (EOFError, OSError, zlib.error, pa.ArrowException)


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


def not_encoded(source: Source, position: str, data: bytes, note: str = "") -> PacklmError:
    """The error of bytes that are not in the encoding of their source; `note`: what else is known about the file."""
    return PacklmError(
        f"{source.where}: not {label(source.encoding)} at {position} (byte {data.hex(' ')}){note}; {encoding_remedy(source.encoding)}"
    )


def encoding_remedy(encoding: str) -> str:
    """What to do about bytes that are not in an encoding."""
    return f"set another encoding than {label(encoding)} (--corpus.encoding), or use --corpus.on_bad_text replace or skip"


def too_long(source: Source, position: str, rules: Corpus) -> PacklmError:
    """The error of a document longer than the rules allow; `position` says where it begins."""
    return PacklmError(
        f"{source.where}: {position}: a document longer than corpus.max_document_bytes = {rules.max_document_bytes:,}; split it "
        "(corpus.document), remove it, or raise --corpus.max_document_bytes (memory: several times as much)"
    )


def utf8(part: Part, rules: Corpus, counts: Counter[str]) -> tuple[int | None, Iterator[bytes]]:
    """(byte at which the text begins, None unless the source is UTF-8; blocks of the text as UTF-8). A byte order mark is dropped, counted.

    Bytes that are not in `rules.encoding` raise `PacklmError` under on_bad_text = "error", otherwise become bytes that are not UTF-8.
    """
    source, offset, blocks = part.source, part.start, _bytes(part)
    if source.encoding != "utf-8":
        strict = rules.on_bad_text == "error"
        blocks = to_utf8(blocks, source.encoding, strict, source.where, offset, part.number, encoding_remedy(source.encoding))
    if part.start == 0:
        first = b""
        while len(first) < len(_BOM) and (block := next(blocks, None)) is not None:
            first += block
        if first.startswith(_BOM):
            counts["byte order marks dropped"] += 1
            first, offset = first[len(_BOM) :], len(_BOM)
        blocks = chain([first], blocks)
    return offset if source.encoding == "utf-8" else None, blocks


def lines(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[Lines]:
    """The lines of a part; `PacklmError` if one is longer than a document may be."""
    offset, blocks = utf8(part, rules, counts)
    number, limit = part.number, rules.max_document_bytes
    tail: list[bytes] = []  # the beginning of a line whose end has not been read
    tail_size = 0
    for block in chain(blocks, [None]):
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


def _bytes(part: Part) -> Iterator[bytes]:
    """The bytes of a part, decompressed, in blocks of `BLOCK`; the last is shorter."""
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
                read = _decompressor(file, source)
                while block := _read_block(read):
                    position += len(block)
                    yield block
                position = part.stop
        except _DAMAGED as error:
            if source.compression is None:
                raise PacklmError(f"{source.where}: cannot be read after {position:,} bytes: {error}") from None
            raise PacklmError(
                f"{source.where}: damaged or truncated: {error}; {position:,} bytes of text could be read; replace the file"
            ) from None
    if position < part.stop:
        problem = f"ends after {position:,} bytes and had {part.stop:,} before"
        raise PacklmError(f"{source.where}: {problem}: changed while it was being read; run the same command again")


def _decompressor(file: BufferedIOBase, source: Source) -> Callable[[int], bytes]:
    if source.compression == "gz":
        return gzip.GzipFile(fileobj=file).read
    read: Callable[[int], bytes] = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd").read
    return read


def _read_block(read: Callable[[int], bytes]) -> bytes:
    """The next `BLOCK` bytes; fewer only at the end."""
    pieces: list[bytes] = []
    missing = BLOCK
    while missing and (piece := read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)

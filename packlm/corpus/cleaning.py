"""Cleaning: what becomes of the documents found, as the rules say. Everything that changes or goes is counted.

The steps, in order; each looks at what the one before has left:

    1. what is not in the file's encoding     on_bad_text    stop, replace by U+FFFD, skip the document
    2. NUL and other control characters       on_control     stop, keep, remove, skip the document
    3. CR LF                                  line_ends      keep, or turn into LF
    4. lines that match                       drop_lines     drop
    5. nothing but white space                on_empty       skip the document, stop
    6. a word spelled <eos>, at word level    on_bad_text    stop, replace by <unk>, skip the document

(A byte order mark is dropped before, when a file is opened.) Each step looks at a block of documents at once; only the documents
that need it are taken out one by one. Shapes: D documents, B bytes.
"""

import codecs
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.sources import Source
from packlm.corpus.streams import not_encoded
from packlm.corpus.transcoding import label
from packlm.dataset import EOS, UNK
from packlm.text.document_block import DocumentBlock, Verbatim
from packlm.text.whitespace import blank, has_control

_CONTROL = np.zeros(256, bool)
_CONTROL[[*range(0x09), *range(0x0E, 0x20), 0x7F]] = True
_STEP = 1 << 17
_BINARY = (b"\x89PNG", b"%PDF", b"PK\x03\x04", b"\x1f\x8b")


@dataclass(frozen=True)
class RawDocuments:
    """Some documents of one source as they were found, end to end."""

    source: Source
    data: np.ndarray
    """[B] uint8: their bytes; UTF-8 where they are good."""
    ends: np.ndarray
    """[D] int64: index in `data` after each document."""
    numbers: np.ndarray
    """[D] int64: number of the line (of CSV and Parquet, row) that each begins with, from 1, rising."""
    offsets: np.ndarray | None = None
    """[D] int64: byte of the source at which each begins; None where that cannot be said."""
    numbered: bool = True
    """Whether the names have the numbers in them."""
    untouched: bool = True
    """Whether the bytes of each document are still those that were found."""

    @property
    def starts(self) -> np.ndarray:
        """[D] int64: index in `data` of each document's first byte."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[: len(self.ends)]

    def document(self, index: int) -> bytes:
        """The bytes of one document."""
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : self.ends[index]].tobytes()

    def place(self, index: int, at: int) -> str:
        """Where byte `at` of a document is in the source, in words."""
        number = int(self.numbers[index])
        if self.source.kind in ("csv", "parquet"):
            return f"row {number}"
        line = number + (self.document(index)[:at].count(b"\n") if self.source.kind == "text" else 0)
        return f"line {line}" if self.offsets is None else f"byte offset {int(self.offsets[index]) + at}, line {line}"

    def select(self, mask: np.ndarray) -> "RawDocuments":
        """The documents at which `mask` [D] is true."""
        if mask.all():
            return self
        lengths = np.diff(self.ends, prepend=0)
        offsets = None if self.offsets is None else self.offsets[mask]
        data = self.data[np.repeat(mask, lengths)]
        return replace(self, data=data, ends=np.cumsum(lengths[mask]), numbers=self.numbers[mask], offsets=offsets)

    def without(self, positions: np.ndarray) -> "RawDocuments":
        """The documents without the bytes at `positions`, which rise."""
        ends = self.ends - np.searchsorted(positions, self.ends)
        return replace(self, data=np.delete(self.data, positions), ends=ends, untouched=False)

    def rewritten(self, changes: Mapping[int, bytes]) -> "RawDocuments":
        """The documents with others in some places; the indices rise."""
        pieces: list[Any] = []
        before = 0
        lengths, starts = np.diff(self.ends, prepend=0), self.starts
        for index, document in changes.items():
            pieces += [self.data[before : starts[index]].data, document]
            before = int(self.ends[index])
            lengths[index] = len(document)
        data = b"".join([*pieces, self.data[before:].data])
        return replace(self, data=np.frombuffer(data, np.uint8), ends=np.cumsum(lengths), untouched=False)

    def texts(self) -> DocumentBlock:
        """The documents under their names."""
        if self.numbered:
            names = pc.binary_join_element_wise(self.source.name, pa.array(self.numbers).cast(pa.string()), ":")
        else:
            names = pa.array([self.source.name] * len(self.ends), pa.string())
        if self.untouched and self.source.plain and self.source.path is not None and self.offsets is not None:
            return DocumentBlock(names, self.data, self.ends, Verbatim(self.source.path.absolute(), self.offsets))
        return DocumentBlock(names, self.data, self.ends)


def clean(found: RawDocuments, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> DocumentBlock:
    """What is left of the documents.

    Args:
        spelled_eos: the words that the tokenizer would take for the special token (`Encoder.spelled_eos`).
        counts: reason -> how often; added to.

    Raises:
        PacklmError: naming the place, where the rules say to stop.
    """
    left = _decoded(found, rules, counts)
    left = _without_control(left, found, rules, counts)
    if rules.line_ends == "lf":
        left = _with_line_feeds(left, counts)
    if rules.drop_lines:
        left = _without_lines(left, rules, counts)
    left = _without_empty(left, found, rules, counts)
    if spelled_eos:
        left = _without_eos(left, found, rules, spelled_eos, counts)
    return left.texts()


def _decoded(found: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    if _valid(found):
        return found
    changes: dict[int, bytes] = {}
    good = np.ones(len(found.ends), bool)
    for index in range(len(found.ends)):
        data = found.document(index)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if rules.on_bad_text == "error":
                encoding = found.source.encoding
                bad = data[error.start : error.end].hex(" ")
                about = f"not {label(encoding)} at {found.place(index, error.start)} (byte {bad})"
                raise PacklmError(f"{found.source.where}: {about}{_looks(data)}; {not_encoded(encoding)}") from None
            if rules.on_bad_text == "skip":
                good[index] = False
            else:
                text = data.decode(errors="replace")
                counts["bad byte sequences replaced by U+FFFD"] += text.count("\ufffd") - data.count("\ufffd".encode())
                changes[index] = text.encode()
    if changes:
        return found.rewritten(changes)
    counts[f"documents skipped that are not {label(found.source.encoding)}"] += int((~good).sum())
    return found.select(good)


def _valid(found: RawDocuments) -> bool:
    try:
        place, data = 0, found.data.data
        while place < len(data):  # a little at a time stays in the processor's cache
            place += codecs.utf_8_decode(data[place : place + _STEP], "strict", place + _STEP >= len(data))[1]
    except UnicodeDecodeError:
        return False
    starts = found.starts
    begins = found.data[starts[starts < len(found.data)]]
    return not ((begins & 0xC0) == 0x80).any()  # a character that one document begins and the next one ends is in neither


def _without_control(left: RawDocuments, found: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    data = left.data
    if rules.on_control == "keep":
        return left
    if not has_control(data):
        return left
    positions = np.flatnonzero(_CONTROL[data])
    owners = np.searchsorted(left.ends, positions, side="right")
    if rules.on_control == "error":
        index, original = _original(left, int(owners[0]), found)
        at = int(np.flatnonzero(_CONTROL[np.frombuffer(original, np.uint8)])[0])
        about = f"control character U+{original[at]:04X} at {found.place(index, at)}{_looks(original)}"
        raise PacklmError(f"{found.source.where}: {about}; change it, or go on with --corpus.on_control remove, skip or keep")
    if rules.on_control == "remove":
        counts["control characters removed"] += len(positions)
        return left.without(positions)
    good = np.ones(len(left.ends), bool)
    good[owners] = False
    counts["documents skipped that have control characters"] += int((~good).sum())
    return left.select(good)


def _with_line_feeds(left: RawDocuments, counts: Counter[str]) -> RawDocuments:
    returns = np.flatnonzero(left.data[:-1] == ord("\r"))
    returns = returns[left.data[returns + 1] == ord("\n")]
    apart = left.ends[np.searchsorted(left.ends, returns + 1)] == returns + 1
    returns = returns[~apart]  # those whose line feed is in the same document
    if not len(returns):
        return left
    counts["CR LF line ends turned into LF"] += len(returns)
    return left.without(returns)


def _without_lines(left: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    patterns = [(re.compile(pattern).fullmatch, f"lines dropped by {pattern!r}") for pattern in rules.drop_lines]
    data = left.data.tobytes()
    ends = np.union1d(np.flatnonzero(left.data == ord("\n")) + 1, left.ends[left.ends > 0])
    dropped, start = [], 0
    for index, end in enumerate(ends.tolist()):
        line = data[start:end].decode().strip()
        for matches, reason in patterns:
            if matches(line):
                counts[reason] += 1
                dropped.append(index)
                break
        start = end
    if not dropped:
        return left
    lost = np.zeros(len(ends), bool)
    lost[dropped] = True
    rest = left.without(np.flatnonzero(np.repeat(lost, np.diff(ends, prepend=0))))
    good = np.ones(len(left.ends), bool)
    if left.source.kind == "text" and rules.document == "line":
        good[np.searchsorted(left.ends, ends[dropped])] = False  # dropped, and so not counted as empty
    return rest.select(good)


def _without_empty(left: RawDocuments, found: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    empty = blank(left.data, left.starts, left.ends)
    if not empty.any():
        return left
    if rules.on_empty == "error":
        index, _ = _original(left, int(empty.argmax()), found)
        about = f"{found.place(index, 0)}: a document of nothing but white space"
        raise PacklmError(f"{found.source.where}: {about}; take it out, or go on with --corpus.on_empty skip")
    counts["empty documents skipped"] += int(empty.sum())
    return left.select(~empty)


def _without_eos(left: RawDocuments, found: RawDocuments, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> RawDocuments:
    word = re.compile(rf"(?<!\S){spelled_eos}(?!\S)")
    positions = np.array([match.start() for match in re.finditer(spelled_eos.encode(), left.data.tobytes())], np.int64)
    changes: dict[int, bytes] = {}
    good = np.ones(len(left.ends), bool)
    for index in np.unique(np.searchsorted(left.ends, positions, side="right")).tolist():
        text, replaced = word.subn(UNK, left.document(index).decode())
        if replaced and rules.on_bad_text == "error":
            first, original = _original(left, index, found)
            spelled = word.search(original.decode(errors="surrogateescape"))
            at = len(spelled.string[: spelled.start()].encode(errors="surrogateescape")) if spelled else 0
            raise PacklmError(
                f"{found.source.where}: {found.place(first, at)} has a word spelled {spelled[0] if spelled else EOS}, "
                "which is the end of a sentence to the tokenizer; change it, or go on with --corpus.on_bad_text replace or skip"
            )
        if replaced and rules.on_bad_text == "skip":
            good[index] = False
            counts[f"documents skipped that have a word spelled {EOS}"] += 1
        elif replaced:
            counts[f"words spelled {EOS} replaced by {UNK}"] += replaced
            changes[index] = text.encode()
    return left.rewritten(changes) if changes else left.select(good)


def _original(left: RawDocuments, index: int, found: RawDocuments) -> tuple[int, bytes]:
    """The index and the bytes of a document before any step: places in it are places in the file."""
    first = int(np.searchsorted(found.numbers, left.numbers[index]))
    return first, found.document(first)


def _looks(data: bytes) -> str:
    """What else a document with bad bytes or control characters may be, in words."""
    head = data[: 1 << 12]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ", which looks like UTF-16 (--corpus.encoding utf-16)"
    if max(even, odd) > 1 + len(head) // 8 and min(even, odd) <= max(even, odd) // 8:
        return f", which looks like UTF-16 (--corpus.encoding utf-16-{'be' if even > odd else 'le'})"
    if int(_CONTROL[np.frombuffer(head, np.uint8)].sum()) > 4 + len(head) // 20 or head.startswith(_BINARY):
        return ", which looks like a binary file (leave it out)"
    return ""

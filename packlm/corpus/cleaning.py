"""Cleans documents as the rules of the section `corpus` say; everything that is changed or dropped is counted.

The steps, in order, each on the result of the one before:

    1. bytes that are not in the file's encoding   on_bad_text    stop, replace by U+FFFD, skip the document
    2. NUL and other control characters            on_control     stop, keep, remove, skip the document
    3. CR LF                                       line_ends      keep, or convert to LF
    4. lines that match                            drop_lines     drop
    5. nothing but whitespace                      on_empty       skip the document, stop
    6. a word spelled <eos>, at word level         on_bad_text    stop, replace by <unk>, skip the document
    7. signs of a wrong encoding                                  count

(Byte order marks are dropped earlier, when a file is opened.) Each step handles a block of documents at once; only the documents that need
it are handled one by one. Shapes: D documents, B bytes.
"""

import codecs
import re
from collections import Counter

import numpy as np

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus.file_kinds import looks_like
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.streams import not_encoded
from packlm.corpus.transcoding import label
from packlm.dataset import EOS, UNK
from packlm.text.document_block import DocumentBlock
from packlm.text.whitespace import blank, has_control

_IS_CONTROL = np.zeros(256, bool)
_IS_CONTROL[[*range(0x09), *range(0x0E, 0x20), 0x7F]] = True
_DECODE_BYTES = 1 << 17  # decoded at a time, which stays in the CPU cache
_GARBLED = re.compile(
    rb"\xc3\x82\xc2[\xa0-\xbf]|\xc3[\x83\x90\x91](?:\xc2[\x80-\xbf]|"
    + "|".join(bytes(range(0x80, 0xA0)).decode("cp1252", "ignore")).encode()
    + rb")|\xc3\xa2(?:\xe2\x82\xac|\xc2\x80)"
)
"""Two characters that UTF-8 read in latin-1 or cp1252 is full of, and text is not: A with circumflex or tilde, Eth or N with tilde before
one of the characters at bytes 80 to BF; a with circumflex before the euro sign, as which quotation marks and dashes begin."""
C1 = "C1 control characters (U+0080-U+009F) kept"
GARBLED = "pairs of characters that look like UTF-8 read in another encoding"


def clean(raw: RawDocuments, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> DocumentBlock:
    """Cleans a block of documents; returns those that remain.

    Args:
        spelled_eos: regular expression of the words that the tokenizer would take for `<eos>` (`Encoder.spelled_eos`).
        counts: reason -> number of changes; updated.

    Raises:
        PacklmError: naming file and position, where the rules say to stop.
    """
    documents = _check_encoding(raw, rules, counts)
    documents = _handle_control(documents, raw, rules, counts)
    if rules.line_ends == "lf":
        documents = _convert_line_ends(documents, counts)
    if rules.drop_lines:
        documents = _drop_lines(documents, rules, counts)
    documents = _drop_empty(documents, raw, rules, counts)
    if spelled_eos:
        documents = _handle_spelled_eos(documents, raw, rules, spelled_eos, counts)
    for reason, count in signs_of_wrong_encoding(documents.data, documents.ends).items():
        counts[reason] += count
    return documents.named()


def signs_of_wrong_encoding(data: np.ndarray, ends: np.ndarray) -> dict[str, int]:
    """`C1` or `GARBLED` -> number in documents that end at `ends`. Text has none of them, unless it was decoded from a wrong encoding."""
    signs: dict[str, int] = {}
    if data.max(initial=0) < 0x80:
        return signs
    leads = np.flatnonzero(data[:-1] == 0xC2)
    if count := int((data[leads + 1] < 0xA0).sum()):
        signs[C1] = count
    leads = np.flatnonzero(data[:-1] == 0xC3)
    if np.isin(data[leads + 1], [0x82, 0x83, 0x90, 0x91, 0xA2]).any():
        starts = np.array([match.start() for match in _GARBLED.finditer(data.data)], np.int64)
        if count := int((ends[np.searchsorted(ends, starts, side="right")] > starts + 2).sum()):  # the pair is in one document
            signs[GARBLED] = count
    return signs


def _check_encoding(raw: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    if _is_utf8(raw):
        return raw
    replacements: dict[int, bytes] = {}
    keep = np.ones(len(raw.ends), bool)
    for index in range(len(raw.ends)):
        data = raw.document(index)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if rules.on_bad_text == "error":
                raise not_encoded(raw.source, raw.position(index, error.start), data[error.start : error.end], data) from None
            if rules.on_bad_text == "skip":
                keep[index] = False
            else:
                text = data.decode(errors="replace")
                counts["bad byte sequences replaced by U+FFFD"] += text.count("\ufffd") - data.count("\ufffd".encode())
                replacements[index] = text.encode()
    if replacements:
        return raw.replace_documents(replacements)
    counts[f"documents skipped that are not {label(raw.source.encoding)}"] += int((~keep).sum())
    return raw.select(keep)


def _is_utf8(raw: RawDocuments) -> bool:
    """Whether every document is valid UTF-8 by itself."""
    try:
        start, data = 0, raw.data.data
        while start < len(data):
            start += codecs.utf_8_decode(data[start : start + _DECODE_BYTES], "strict", start + _DECODE_BYTES >= len(data))[1]
    except UnicodeDecodeError:
        return False
    starts = raw.starts
    first_bytes = raw.data[starts[starts < len(raw.data)]]
    return not ((first_bytes & 0xC0) == 0x80).any()  # no character spans two documents


def _handle_control(documents: RawDocuments, raw: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    if rules.on_control == "keep" or not has_control(documents.data):
        return documents
    indices = np.flatnonzero(_IS_CONTROL[documents.data])
    owners = np.searchsorted(documents.ends, indices, side="right")
    if rules.on_control == "error":
        index, original = _original(documents, int(owners[0]), raw)
        byte = int(np.flatnonzero(_IS_CONTROL[np.frombuffer(original, np.uint8)])[0])
        problem = f"control character U+{original[byte]:04X} at {raw.position(index, byte)}{looks_like(original)}"
        raise PacklmError(f"{raw.source.where}: {problem}; remove it, or use --corpus.on_control remove, skip or keep")
    if rules.on_control == "remove":
        counts["control characters removed"] += len(indices)
        return documents.delete_bytes(indices)
    keep = np.ones(len(documents.ends), bool)
    keep[owners] = False
    counts["documents skipped that have control characters"] += int((~keep).sum())
    return documents.select(keep)


def _convert_line_ends(documents: RawDocuments, counts: Counter[str]) -> RawDocuments:
    returns = np.flatnonzero(documents.data[:-1] == ord("\r"))
    returns = returns[documents.data[returns + 1] == ord("\n")]
    in_next_document = documents.ends[np.searchsorted(documents.ends, returns + 1)] == returns + 1
    returns = returns[~in_next_document]
    if not len(returns):
        return documents
    counts["CR LF line ends turned into LF"] += len(returns)
    return documents.delete_bytes(returns)


def _drop_lines(documents: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    patterns = [(re.compile(pattern).fullmatch, f"lines dropped by {pattern!r}") for pattern in rules.drop_lines]
    data = documents.data.tobytes()
    ends = np.union1d(np.flatnonzero(documents.data == ord("\n")) + 1, documents.ends[documents.ends > 0])
    drop = np.zeros(len(ends), bool)
    start = 0
    for index, end in enumerate(ends.tolist()):
        line = data[start:end].decode().strip()
        for matches, reason in patterns:
            if matches(line):
                counts[reason] += 1
                drop[index] = True
                break
        start = end
    if not drop.any():
        return documents
    shortened = documents.delete_bytes(np.flatnonzero(np.repeat(drop, np.diff(ends, prepend=0))))
    keep = np.ones(len(documents.ends), bool)
    if documents.is_text and rules.document == "line":
        keep[np.searchsorted(documents.ends, ends[drop])] = False  # dropped, hence not counted as empty
    return shortened.select(keep)


def _drop_empty(documents: RawDocuments, raw: RawDocuments, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    empty = blank(documents.data, documents.starts, documents.ends)
    if not empty.any():
        return documents
    if rules.on_empty == "error":
        index, _ = _original(documents, int(empty.argmax()), raw)
        problem = f"{raw.position(index, 0)}: a document of nothing but whitespace"
        raise PacklmError(f"{raw.source.where}: {problem}; remove it, or use --corpus.on_empty skip")
    counts["empty documents skipped"] += int(empty.sum())
    return documents.select(~empty)


def _handle_spelled_eos(documents: RawDocuments, raw: RawDocuments, rules: Corpus, spelled_eos: str, counts: Counter[str]) -> RawDocuments:
    word = re.compile(rf"(?<!\S){spelled_eos}(?!\S)")
    indices = np.array([match.start() for match in re.finditer(spelled_eos.encode(), documents.data.tobytes())], np.int64)
    replacements: dict[int, bytes] = {}
    keep = np.ones(len(documents.ends), bool)
    for index in np.unique(np.searchsorted(documents.ends, indices, side="right")).tolist():
        text, count = word.subn(UNK, documents.document(index).decode())
        if count and rules.on_bad_text == "error":
            raw_index, original = _original(documents, index, raw)
            match = word.search(original.decode(errors="surrogateescape"))
            byte = len(match.string[: match.start()].encode(errors="surrogateescape")) if match else 0
            raise PacklmError(
                f"{raw.source.where}: {raw.position(raw_index, byte)} has a word spelled {match[0] if match else EOS}, which the tokenizer "
                "takes for the end of a sentence; change it, or use --corpus.on_bad_text replace or skip"
            )
        if count and rules.on_bad_text == "skip":
            keep[index] = False
            counts[f"documents skipped that have a word spelled {EOS}"] += 1
        elif count:
            counts[f"words spelled {EOS} replaced by {UNK}"] += count
            replacements[index] = text.encode()
    return documents.replace_documents(replacements) if replacements else documents.select(keep)


def _original(documents: RawDocuments, index: int, raw: RawDocuments) -> tuple[int, bytes]:
    """The index and the bytes that a document had before any step, whose offsets are those of the file."""
    raw_index = int(np.searchsorted(raw.numbers, documents.numbers[index]))
    return raw_index, raw.document(raw_index)

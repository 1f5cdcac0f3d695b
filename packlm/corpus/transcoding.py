"""Transcoding to UTF-8 while text is read, so that everything after handles UTF-8 alone.

What is not in the source's encoding becomes the byte FF, which never occurs in UTF-8: cleaning then finds it in its document.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from packlm.base.errors import PacklmError

BAD = b"\xff"
ENCODING_REMEDY = (
    "convert to UTF-8, read each file in its own encoding with --corpus.encoding auto, or use --corpus.on_bad_text replace or skip"
)
_MARK = "packlm.mark"
# Stateless supersets of ASCII in which no sequence, valid or not, swallows a line feed. (The decoders of EUC-JP, EUC-KR and GB 18030
# swallow one that cuts a sequence short.)
_LINE_SAFE = re.compile(r"utf-8|ascii|iso8859-\d+|cp125\d|koi8-[rtu]|gbk|gb2312|big5|big5hkscs|shift_jis|cp932|cp949|cp950")


class NotEncoded(PacklmError):
    """Bytes that are not in the encoding of their file; another file may have some, too (`bad_files.listed`)."""


def codec(name: str) -> str:
    """The canonical name of an encoding in Python; utf-8-sig is utf-8, since byte order marks are dropped anyway; so is auto, until a file
    is looked at."""
    canonical = "utf-8" if name == "auto" else codecs.lookup(name).name
    return "utf-8" if canonical == "utf-8-sig" else canonical


def label(encoding: str) -> str:
    """The name of an encoding in messages."""
    return "UTF-8" if encoding == "utf-8" else encoding


def cuts_at_line_feeds(encoding: str) -> bool:
    """Whether a file can be cut after any byte 0A and its parts decoded separately."""
    return bool(_LINE_SAFE.fullmatch(encoding))


def as_text(data: bytes, encoding: str) -> str:
    """Decodes whole lines as `to_utf8` does, with U+FFFD for invalid bytes."""
    return data.decode(errors="replace") if encoding == "utf-8" else _marked(data.decode(encoding, _mark())).decode(errors="replace")


def to_utf8(blocks: Iterable[bytes], encoding: str, strict: bool, where: str, offset: int, line: int) -> Iterator[bytes]:
    """Transcodes blocks of bytes to UTF-8.

    Args:
        strict: raise `NotEncoded` for bytes that are not in the encoding, instead of marking them.
        where, offset, line: name of the file in messages; byte and line at which the text begins.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict" if strict else _mark())
    for block, last in _with_last(blocks):
        state = decoder.getstate()
        pending = len(state[0])
        try:
            text = decoder.decode(block, last)
        except UnicodeDecodeError as error:
            decoder.reset()
            decoder.setstate(state)
            line += decoder.decode(block[: max(error.start - pending, 0)]).count("\n")
            position = f"byte offset {offset - pending + error.start}, line {line}"
            invalid = error.object[error.start : error.end].hex(" ")
            raise NotEncoded(f"{where}: not {label(encoding)} at {position} (byte {invalid}); {ENCODING_REMEDY}") from None
        except UnicodeError as error:
            problem = f"not {label(encoding)} after byte offset {offset}, line {line} ({error})"
            raise NotEncoded(f"{where}: {problem}; {ENCODING_REMEDY}") from None
        offset += len(block)
        line += text.count("\n")
        yield _marked(text)


def _marked(text: str) -> bytes:
    return text.encode("utf-8", _mark())


def _mark() -> str:
    """Registers an error handler that decodes invalid bytes to a mark and encodes the mark as `BAD`; returns its name."""

    def handle(error: UnicodeError) -> tuple[str | bytes, int]:
        if isinstance(error, UnicodeDecodeError):
            return "\udcff", error.end
        if isinstance(error, UnicodeEncodeError):
            return BAD * (error.end - error.start), error.end
        raise error

    codecs.register_error(_MARK, handle)
    return _MARK


def _with_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    yield from ((block, False) for block in blocks)
    yield b"", True

"""Text in any encoding becomes UTF-8 as it is read, so that everything after looks at UTF-8 alone.

What is not in the encoding becomes the byte FF, which no UTF-8 has: the rules for bad text then meet it in its document.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from packlm.base.errors import PacklmError

BAD = b"\xff"
_MARK = "packlm.mark"
# No state, ASCII for what ASCII has, and no sequence, good or bad, that takes in a line feed. (The decoders of EUC-JP, EUC-KR and
# GB 18030 take one in where a sequence is cut short by it.)
_PLAIN = re.compile(r"utf-8|ascii|iso8859-\d+|cp125\d|koi8-[rtu]|gbk|gb2312|big5|big5hkscs|shift_jis|cp932|cp949|cp950")


def codec(name: str) -> str:
    """What Python's codec of an encoding is called; UTF-8 with a byte order mark is UTF-8, whose marks are dropped anyway."""
    found = codecs.lookup(name).name
    return "utf-8" if found == "utf-8-sig" else found


def label(encoding: str) -> str:
    """What messages call an encoding."""
    return "UTF-8" if encoding == "utf-8" else encoding


def cuts_at_line_feeds(encoding: str) -> bool:
    """Whether a file can be cut after any byte 0A, and its parts decoded by themselves."""
    return bool(_PLAIN.fullmatch(encoding))


def as_text(data: bytes, encoding: str) -> str:
    """The text of some lines, with U+FFFD for what is bad, as it is after `to_utf8`."""
    return data.decode(errors="replace") if encoding == "utf-8" else _marked(data.decode(encoding, _mark())).decode(errors="replace")


def to_utf8(blocks: Iterable[bytes], encoding: str, strict: bool, where: str, offset: int, line: int, remedy: str) -> Iterator[bytes]:
    """The same text as UTF-8.

    Args:
        strict: raise `PacklmError` at what is not in the encoding, rather than mark it.
        where, offset, line: what the file is called, and where in it the text begins.
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
            place = f"{where}: not {label(encoding)} at byte offset {offset - pending + error.start}, line {line}"
            bad = error.object[error.start : error.end].hex(" ")
            raise PacklmError(f"{place} (byte {bad}); {remedy}") from None
        except UnicodeError as error:
            raise PacklmError(f"{where}: not {label(encoding)} after byte offset {offset}, line {line} ({error}); {remedy}") from None
        offset += len(block)
        line += text.count("\n")
        yield _marked(text)


def _marked(text: str) -> bytes:
    return text.encode("utf-8", _mark())


def _mark() -> str:
    """The name of an error handler that puts a mark in the place of what cannot be decoded, and then encodes the mark as `BAD`."""

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

"""The likely encoding of bytes that name none: UTF-8 where they are valid, else what their BOM, their zeros or charset-normalizer say.

charset-normalizer knows a hundred encodings, and on short texts takes one for another: French in cp1252 for Mac OS Latin 2, a sentence
with two accents for Chinese. So it chooses only among the encodings that text has really been stored in, of those that can spell the
bytes, and among encodings of Latin letters cp1252 is preferred where it is about as plausible. A text of a few words can still be
mistaken; wherever an encoding is chosen, it is told.
"""

import codecs
from collections.abc import Iterable

_SAMPLE = 1 << 16
"""Bytes of lines with non-ASCII characters by which an encoding is chosen."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LATIN = ("cp1250", "iso8859-2", "cp1254", "cp1257")
_NOT_LATIN = ("cp1251", "koi8-r", "cp866", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949")
_PREFERENCE = 0.03
"""How much less plausible than another encoding cp1252 may be (charset-normalizer's chaos minus coherence, each from 0 to 1)."""


def likely(data: bytes) -> str:
    """The likely encoding of a text, or of its beginning, as Python names it; `utf-8` for ASCII and for UTF-8 with a few bad bytes."""
    return with_zeros(data) or ("utf-8" if _is_mostly_utf8(data) else _legacy(data))


def of_blocks(blocks: Iterable[bytes]) -> str:
    """The likely encoding of a whole text: `utf-8` if all of it is valid, else that of its first lines that are not ASCII."""
    decoder, valid, first = codecs.getincrementaldecoder("utf-8")(), True, True
    sample = bytearray()
    for block in blocks:
        if first and (name := with_zeros(block)):
            return name
        first = False
        if valid:
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                valid = False
        if len(sample) < _SAMPLE and not block.isascii():
            lines = block.split(b"\n")
            sample += b"\n".join(line for line in lines if not line.isascii())[: _SAMPLE - len(sample)]
            sample += b"\n" * lines[-1].isascii()  # else the line continues in the next block
        if not valid and len(sample) >= _SAMPLE:
            break
    if valid and not decoder.getstate()[0]:
        return "utf-8"
    return likely(bytes(sample))


def with_zeros(data: bytes) -> str:
    """UTF-16 or UTF-32, told by the byte order mark or by zeros in every second byte of text; empty for other bytes."""
    for mark, name in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return name
    head = data[: 1 << 12]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) <= 1 + len(head) // 32 or min(even, odd) > max(even, odd) // 8:
        return ""
    name = "utf-16-be" if even > odd else "utf-16-le"
    text = codecs.getincrementaldecoder(name)("replace").decode(head)
    return name if sum(character.isprintable() or character.isspace() for character in text) >= 0.9 * len(text) else ""


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether the non-ASCII characters are UTF-8, but for less than a third: in other encodings, few bytes happen to be valid."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        text = data[:_SAMPLE].decode(errors="replace")
        bad = text.count("\ufffd")
        return sum(character > "\x7f" for character in text) - bad > 2 * bad
    return used == len(data) or not text.isascii()  # the last character may be cut, but is not the only one


def _legacy(data: bytes) -> str:
    """The likely encoding of text that is not Unicode."""
    from charset_normalizer import from_bytes  # imported where there is something to guess

    data = data[:_SAMPLE]
    letters = sum(byte >= 0x80 or bytes((byte,)).isalpha() for byte in data)
    is_latin = 2 * sum(byte >= 0x80 for byte in data) < letters
    western = "iso8859-1" if _decoded(data, "cp1252") is None else "cp1252"  # cp1252 lacks five of the characters
    texts = {name: text for name in ((western, *_LATIN) if is_latin else _NOT_LATIN) if (text := _decoded(data, name)) is not None}
    if not texts:
        return western
    matches = from_bytes(data, cp_isolation=list(texts))
    best = matches.best()
    if best is None:
        return next(iter(texts))
    if not is_latin:
        return codecs.lookup(best.encoding).name
    implausible = {str(match): match.chaos - match.coherence for match in matches}
    scores = {name: implausible[text] - _PREFERENCE * (name == western) for name, text in texts.items() if text in implausible}
    return min(scores, key=lambda name: scores[name]) if scores else next(iter(texts))


def _decoded(data: bytes, encoding: str) -> str | None:
    """The text, of which the last character may be cut; None if the bytes are not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeError:
        return None

"""Lines of files from outside: the text or JSON value of each, or what is wrong with it, whatever it is and however long."""

from collections.abc import Iterator
from typing import IO, Any

from packlm.base import json_text

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_BYTES = 8 << 20
"""Longest line; bounds the memory that one line takes, which is a multiple of its length."""
MAX_DEPTH = 100
"""Most JSON values within each other: what is nested deeper is refused before a parser or writer runs out of stack."""


def read(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a stream, without a byte order mark; of a line of more than `MAX_BYTES` only the beginning, which `decode` refuses."""
    mark = BYTE_ORDER_MARK
    while line := stream.readline(MAX_BYTES + 1):
        end = line
        while end and not end.endswith(b"\n"):
            end = stream.readline(MAX_BYTES)
        yield line.removeprefix(mark)
        mark = b""


def decode(line: bytes) -> tuple[str, str]:
    """(text without its line end, "") of a line, or ("", what is wrong)."""
    if len(line) > MAX_BYTES:
        return "", f"longer than {MAX_BYTES >> 20} MiB"
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 at byte {error.start + 1}"
    return ("", "holds a NUL character") if "\0" in text else (text, "")


def json_value(line: str) -> tuple[Any, str]:
    """(value, "") of a line of JSON, or (None, what is wrong)."""
    try:
        value = json_text.loads(line)
        if line.count("[") + line.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
            raise ValueError("nested too deeply")
        json_text.dumps(value).encode()  # fails on an unpaired surrogate, which JSON can spell but UTF-8 cannot
    except ValueError as error:
        return None, f"not JSON: {error}"
    return value, ""


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return depth == 0 or any(_is_deeper(inner, depth - 1) for inner in (value.values() if isinstance(value, dict) else value))

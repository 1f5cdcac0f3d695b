"""Decodes lines of files from outside: the text or JSON value of a line, or what is wrong with it."""

import json
from typing import Any


def decode(line: bytes) -> tuple[str, str]:
    """(text without its line end, "") of a line, or ("", what is wrong)."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 at byte {error.start + 1}"
    return ("", "holds a NUL character") if "\0" in text else (text, "")


def json_value(line: str) -> tuple[Any, str]:
    """(value, "") of a line of JSON, or (None, what is wrong)."""
    try:
        value = json.loads(line, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # fails on an unpaired surrogate, which JSON can spell but UTF-8 cannot
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return value, ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")

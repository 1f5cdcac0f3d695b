"""Lines of a file that anybody may have written: what they hold, or what is wrong with them."""

import json
from typing import Any


def decoded(line: bytes) -> tuple[str, str]:
    """(text without its line end, "") or ("", what is wrong)."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 at byte {error.start + 1}"
    return ("", "holds a NUL character") if "\0" in text else (text, "")


def json_value(line: str) -> tuple[Any, str]:
    """(value, "") of a line of JSON, or (None, what is wrong)."""
    try:
        value = json.loads(line, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # fails on half a surrogate pair, which JSON can spell but no file can hold
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return value, ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")

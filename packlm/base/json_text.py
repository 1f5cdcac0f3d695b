"""JSON text as every file here is read and written; any fault is a `ValueError`.

Stricter than the standard library: no NaN and Infinity, which JSON does not have; no key twice, of which readers take one or the other; no
integer of more than 64 bits, which no array holds; no half of a surrogate pair, which UTF-8 cannot spell.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

MAX_DIGITS = 20
"""Digits of an integer of 64 bits, with its sign."""


def loads(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds NaN, Infinity, a number beyond float64 or 64 bits, a key twice, or half
            of a surrogate pair.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_of_64_bits, object_pairs_hook=_distinct)
        if (b"\\u" if isinstance(text, bytes) else "\\u") in text:  # type: ignore[operator]
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair in a string (\\u{ord(error.object[error.start]):04x})") from None


def dumps(value: Any, indent: int | None = None) -> str:
    """Writes JSON, not escaping what is not ASCII.

    Raises:
        ValueError: a number is not finite; names its key.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        key = _not_finite(value)
        raise error if key is None else ValueError(f"{key or 'the value'} is not finite, and JSON has no such number") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return values


def _of_64_bits(digits: str) -> int:
    number = int(digits) if len(digits) <= MAX_DIGITS else 2**64
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"the integer {digits[:MAX_DIGITS]}{'...' if len(digits) > MAX_DIGITS else ''} has more than 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a finite number")


def _not_finite(value: Any, key: str = "") -> str | None:
    """The key of the first number that is not finite; None if there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else key
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return None
    found = (_not_finite(inner, f"{key}.{name}" if key else name) for name, inner in items)
    return next((name for name in found if name is not None), None)

"""JSON files that hold the SHA-256 of their own content: a value that was edited or damaged is noticed wherever the file is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from packlm.base import files, json_models
from packlm.base.errors import PacklmError

T = TypeVar("T")
KEY = "digest"


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes `values` to `path` atomically, followed by their digest."""
    files.write_json(path, {**values, KEY: files.digest(values)})


def read(path: Path, kind: type[T], remedy: str) -> T:
    """Reads what `write` wrote. Arguments and errors are those of `parse`; the file may be missing, or not be JSON, too."""
    return parse(files.read_json(path), kind, path, remedy)


def parse(values: Any, kind: type[T], source: object, remedy: str) -> T:
    """Validates the values of a file as an instance of `kind`, as `json_models.parse` does, and their digest.

    Args:
        source: what messages call the file.
        remedy: what the user can do about a damaged one.

    Raises:
        PacklmError: they do not fit (the message names every key at fault), or their digest is another than the file says.
    """
    content = {key: value for key, value in values.items() if key != KEY} if isinstance(values, dict) else values
    parsed = json_models.parse(content, kind, source)
    expected, actual = values.get(KEY), files.digest(content)
    if actual != expected:
        problem = f"the digest of its content is {actual[:16]}, and it should be {str(expected)[:16]}" if expected else "it has no digest"
        raise PacklmError(f"{source}: edited or damaged: {problem}; {remedy}")
    return parsed

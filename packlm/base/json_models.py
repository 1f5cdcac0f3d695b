"""JSON files read through pydantic: a value of a wrong type is one message that names the file and the key."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from packlm.base import files
from packlm.base.errors import PacklmError

T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T:
    """Reads a JSON file as an instance of `kind`: a pydantic model, or any type that pydantic validates.

    Raises:
        PacklmError: the file is missing, not JSON, or does not fit; the message names every key at fault.
    """
    return parse(files.read_json(path), kind, path)


def parse(values: Any, kind: type[T], source: object) -> T:
    """Validates values that were read from `source`, which messages name. As `read`."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'content'}: {fault['msg']}" for fault in error.errors(include_url=False)]
        raise PacklmError(f"{source}: {'; '.join(faults)}") from None

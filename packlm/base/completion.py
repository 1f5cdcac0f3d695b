"""Whether a result on the disk is complete: made from the requested inputs, and unchanged since.

A record of a result is written last, when all its files are on the disk:

    {"name": NAME OF THE RECORD, "inputs": {...}, "outputs": {FILE: SHA-256, ...}, "details": {...}, "digest": SHA-256 of these}

A result without a readable record, with a record of other inputs, or with files that differ from it, is not complete.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from packlm.base import files, json_models, sealed_json
from packlm.base.errors import PacklmError

T = TypeVar("T")


class Record(BaseModel):
    """The content of a record."""

    name: str
    """Of its file: in the place of another record it is none."""
    inputs: dict[str, Any]
    outputs: dict[str, str]
    """SHA-256 of each file, by its path relative to the record."""
    details: dict[str, Any]


def write(record: Path, inputs: Mapping[str, Any], outputs: Iterable[Path], details: Mapping[str, Any] | None = None) -> None:
    """Writes the record of a result.

    Args:
        inputs: what the result was made from, as JSON values.
        outputs: its files; their digests are taken now.
        details: what else is to be known of the result (`details` reads it back).
    """
    digests = {os.path.relpath(path, record.parent): files.sha256(path) for path in outputs}
    sealed_json.write(record, Record(name=record.name, inputs=dict(inputs), outputs=digests, details=dict(details or {})).model_dump())


def is_complete(record: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the result was made from these inputs, and its files are unchanged."""
    try:
        content = _read(record)
    except PacklmError:  # none yet, damaged, or of an older version
        return False
    if content.inputs != dict(inputs):
        return False
    paths = {record.parent / name: digest for name, digest in content.outputs.items()}
    return all(path.is_file() and files.sha256(path) == digest for path, digest in paths.items())


def details(record: Path) -> dict[str, Any]:
    """The `details` that the record was written with."""
    return _read(record).details


def output_digest(record: Path, path: Path) -> str:
    """The SHA-256 of an output when the record was written."""
    return _read(record).outputs[os.path.relpath(path, record.parent)]


def _read(record: Path) -> Record:
    content = sealed_json.read(record, Record, "run the same command again")
    if content.name != record.name:
        raise PacklmError(f"{record}: holds the record {content.name}; run the same command again")
    return content


def read_output(record: Path, path: Path, kind: type[T]) -> T:
    """Reads a JSON output as `json_models.read` does, once it is held against its record; without a record as it is.

    Raises:
        PacklmError: output or record is damaged; the output is missing; or the output was written again since, and the stage has not ended.
    """
    if record.exists():
        if not path.exists():
            raise PacklmError(f"{path}: missing, and {record.name} describes it; run its stage again")
        expected, actual = output_digest(record, path), files.sha256(path)
        if actual != expected:
            raise PacklmError(f"{path}: not what {record.name} describes (sha256 {expected}, got {actual}); run its stage again")
    return json_models.read(path, kind)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two nested records of inputs, as lines `section.key: old -> new`."""
    flat_old, flat_new = _flat(old), _flat(new)
    keys = sorted({*flat_old, *flat_new})
    return [f"{key}: {flat_old.get(key)!r} -> {flat_new.get(key)!r}" for key in keys if flat_old.get(key) != flat_new.get(key)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

"""What differs between two records of settings: whether a result on the disk is the one that is asked for."""

from collections.abc import Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two nested records of settings, as lines `section.key: old -> new`."""
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

"""Copies standard input and Hugging Face datasets to local files, which are then read like any other: in parts, and as often as needed."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from packlm.base import files
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, RequestError
from packlm.base.log import progress
from packlm.corpus.records import NAME_FIELD, field_names, field_of

log = logging.getLogger("packlm")
_BLOCK = 1 << 22


class HubDataset(NamedTuple):
    """A split of a dataset on the Hugging Face hub, or in a local folder."""

    name: str
    """Its name as a source."""
    address: str
    config: str | None
    split: str


def copy_standard_input(path: Path) -> None:
    """Copies standard input, byte for byte, to the file `path`."""
    with files.atomic(path) as stream, progress(desc="standard input", unit="B", unit_scale=True) as bar:
        while block := sys.stdin.buffer.read(_BLOCK):
            stream.write(block)
            bar.update(len(block))


def parse_hub(location: str, split: str) -> HubDataset:
    """Parses `hub:NAME[:CONFIG[:SPLIT]]`, with `split` as the default; `RequestError` for any other form."""
    address, *more = location.removeprefix("hub:").split(":")
    if not address or len(more) > 2:
        raise RequestError(f"{location}: written hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG:SPLIT")
    config = more[0] if more and more[0] else None
    split = more[1] if len(more) == 2 and more[1] else split
    # A local folder is named by its last component: its path is not part of the corpus.
    shown = Path(address).resolve().name if os.path.exists(address) else address  # noqa: PTH110  (raises nothing for a long name)
    return HubDataset(":".join(word for word in (shown, config, split) if word), address, config, split)


def download_hub(location: str, dataset: HubDataset, field: str, path: Path) -> None:
    """Streams a dataset to the file `path` as JSONL with the column `field` (or a field in one, `data.text`) alone.

    A no-op if an earlier run has done so. Values that are not strings are written as they are, for the JSONL reader to report.

    Raises:
        RequestError: no such dataset, configuration or split; no column `field`.
        PacklmError: the download was interrupted.
    """
    if path.exists():
        return
    rows = _rows(location, dataset)
    try:
        first = next(rows, None)
    except Exception as error:  # datasets raises many types for what it does not find
        raise _cannot_load(location, error) from None
    if first is not None and not _selected(first, field):
        names = ", ".join(map(repr, field_names(first)))
        raise RequestError(f"{location}: no column {field!r}; there are {names}; {NAME_FIELD}")
    with files.atomic(path) as stream, progress(desc=dataset.name, unit=" documents") as bar:
        count, row = 0, first
        while row is not None:
            _write(stream, row, field)
            count += 1
            bar.update()
            try:
                row = next(rows, None)
            except Exception as error:
                problem = f"interrupted after {count:,} documents: {_one_line(error)}"
                raise PacklmError(f"{location}: {problem}; run the same command again") from None


def _rows(location: str, dataset: HubDataset) -> Iterator[dict[str, Any]]:
    import datasets  # takes seconds

    try:
        stream = datasets.load_dataset(dataset.address, dataset.config, split=dataset.split, streaming=True)
    except Exception as error:
        raise _cannot_load(location, error) from None
    yield from stream


def _write(stream: IO[bytes], row: dict[str, Any], field: str) -> None:
    record = _selected(row, field)
    # ASCII, so that the file can be cut at line feeds and lone surrogates reach the reader, which reports them.
    stream.write(json.dumps(record, default=lambda value: {"type": type(value).__name__}).encode() + b"\n")


def _selected(row: dict[str, Any], field: str) -> dict[str, Any]:
    """A row with the column or field `field` alone; without it, empty."""
    try:
        return {field: field_of(row, field)}
    except (KeyError, TypeError):
        return {}


def _cannot_load(location: str, error: Exception) -> PacklmError:
    return error if isinstance(error, PacklmError) else RequestError(f"{location}: cannot be loaded: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return without_credentials(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]  # signed addresses, the hub's token

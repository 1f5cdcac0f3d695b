"""What comes from elsewhere, written to a file first: standard input, and data sets of the Hugging Face hub.

From then on they are read like any other file: in parts, by several processes, and as often as it takes.
"""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.base.log import progress

log = logging.getLogger("packlm")
_BLOCK = 1 << 22


def standard_input(path: Path) -> None:
    """Copies standard input, byte for byte, to the file `path`."""
    with files.atomic(path) as stream, progress(desc="standard input", unit="B", unit_scale=True) as bar:
        while block := sys.stdin.buffer.read(_BLOCK):
            stream.write(block)
            bar.update(len(block))


def hub_name(place: str, split: str) -> tuple[str, str, str | None, str]:
    """`hub:NAME[:CONFIG[:SPLIT]]` -> (name of the source, NAME, CONFIG or None, SPLIT); `RequestError` where it is written otherwise."""
    address, *more = place.removeprefix("hub:").split(":")
    if not address or len(more) > 2:
        raise RequestError(f"{place}: written hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG:SPLIT")
    config = more[0] if more and more[0] else None
    wanted = more[1] if len(more) == 2 and more[1] else split
    # A folder goes by its last part: where it lies is no part of the corpus.
    shown = Path(address).resolve().name if Path(address).exists() else address
    return ":".join(word for word in (shown, config, wanted) if word), address, config, wanted


def hub(place: str, split: str, field: str, path: Path) -> None:
    """Streams a data set to the file `path`, as JSONL with `field` alone; does nothing where an interrupted run has done so.

    Values that are no strings are written as they are, for the reader of JSONL to find.

    Raises:
        RequestError: no such data set, configuration or split; no column `field`.
        PacklmError: the stream broke off.
    """
    if path.exists():
        return
    name, address, config, wanted = hub_name(place, split)
    rows = _rows(place, address, config, wanted)
    try:
        first = next(rows, None)
    except Exception as error:  # what datasets raises for what it does not find has many types
        raise _refused(place, error) from None
    if first is not None and field not in first:
        raise RequestError(f"{place}: no column {field!r}; there are {', '.join(map(repr, first))}; name one with --corpus.text_field")
    with files.atomic(path) as stream, progress(desc=name, unit=" documents") as bar:
        count = _write(stream, first, field) if first is not None else 0
        bar.update(count)
        while True:
            try:
                row = next(rows, None)
            except Exception as error:
                raise PacklmError(f"{place}: broke off after {count:,} documents: {_line(error)}; run the same command again") from None
            if row is None:
                break
            count += _write(stream, row, field)
            bar.update()


def _rows(place: str, address: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets  # takes seconds

    try:
        found = datasets.load_dataset(address, config, split=split, streaming=True)
    except Exception as error:
        raise _refused(place, error) from None
    yield from found


def _write(stream: IO[bytes], row: dict[str, Any], field: str) -> int:
    kept = {field: row[field]} if field in row else {}
    # ASCII, so that it can be cut at line feeds and lone surrogates reach the reader, who names them.
    stream.write(json.dumps(kept, default=lambda value: {"type": type(value).__name__}).encode() + b"\n")
    return 1


def _refused(place: str, error: Exception) -> PacklmError:
    return error if isinstance(error, PacklmError) else RequestError(f"{place}: cannot be had: {_line(error)}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

"""Files of JSON lines, read back line by line: a damaged line costs that line, is counted, and is named."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from packlm.base import json_models, json_text, regular_files
from packlm.base.errors import PacklmError

log = logging.getLogger("packlm")


def read(path: Path, kind: type[BaseModel]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a file, each as text and as the values that `kind` accepts, in order.

    A last line that a kill cut short is left out. Lines that are not JSON or do not fit are left out, too, and a warning says how many
    there are and what is wrong with the first.

    Raises:
        PacklmError: there is no such file, or it is no regular one.
    """
    damaged: list[str] = []
    try:
        with regular_files.open_binary(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    text = line.decode()
                    values = json_text.loads(text)
                    json_models.parse(values, kind, "its content")
                except (ValueError, PacklmError) as error:
                    damaged.append(f"line {number}: {error}")
                    continue
                yield text, values
    finally:  # also when the caller has read enough
        if damaged:
            log.warning("%s: %d damaged lines are left out; the first is %s", path, len(damaged), damaged[0])

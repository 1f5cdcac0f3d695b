"""Prompts of a batch job, from a file of text or JSONL: what each line asks for, or why it is no prompt.

text     a prompt a line
jsonl    {"prompt": ..., "id": ..., "seed": ..., SETTING: ...}, all but the prompt optional; SETTING is one of `generate.*`, for
         this prompt alone
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from packlm.base.errors import RequestError, did_you_mean
from packlm.config.generate import DRAWING

from ..lines import decoded, json_value


@dataclass(frozen=True)
class Request:
    """A line of the file of prompts: a prompt, or why it is none."""

    line: int
    """Counts from 1."""
    prompt: str = ""
    id: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Those of `generate.*` that it has for itself, and `seed`."""
    error: str = ""


def read_requests(stream: IO[bytes], name: str) -> list[Request]:
    """Reads a file of prompts: JSONL where its name ends in `.jsonl` or the first line begins with a brace, else a prompt a line."""
    lines = stream.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":  # what follows the last line feed is no line
        lines.pop()
    structured = name.endswith(".jsonl") or (not name.endswith(".txt") and bool(lines) and lines[0].lstrip().startswith(b"{"))
    return [_request(number, line, structured) for number, line in enumerate(lines, 1)]


def open_requests(path: Path) -> list[Request]:
    """`read_requests` of a file; `RequestError` where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return read_requests(stream, str(path))
    except OSError as error:
        raise RequestError(f"{path}: the prompts cannot be read: {error.strerror}") from None


def _request(number: int, line: bytes, structured: bool) -> Request:
    if (place := line.find(b"\0")) >= 0:
        return Request(number, error=f"not text: byte {place + 1} is NUL")
    text, wrong = decoded(line)
    if wrong or not structured:
        return Request(number, text.strip(), error=wrong)
    value, wrong = json_value(text)
    if wrong:
        return Request(number, error=wrong)
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        return Request(number, error='not an object with a "prompt" that is a string')
    settings = {name: given for name, given in value.items() if name not in ("prompt", "id")}
    if unknown := sorted(set(settings) - {"seed", *DRAWING}):
        hint = did_you_mean(unknown[0], DRAWING, "there are prompt, id, seed and the settings of generate")
        return Request(number, id=value.get("id"), error=f"unknown field {unknown[0]}; {hint}")
    return Request(number, value["prompt"], value.get("id"), settings)

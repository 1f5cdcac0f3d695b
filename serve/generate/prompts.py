"""Reads the prompts of a batch job from text or JSONL; a line that is not a prompt becomes a request with an error.

text     one prompt a line
jsonl    {"prompt": ..., "id": ..., "seed": ..., SETTING: ...}, all but the prompt optional; SETTING is one of `generate.*`, for this
         prompt alone
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from packlm.base import regular_files
from packlm.base.errors import PacklmError, RequestError, did_you_mean
from packlm.config.generate import DECODING_SETTINGS

from .. import lines

MAX_PROMPT = 1_000_000
"""Most characters of a prompt."""


@dataclass(frozen=True)
class Request:
    """A line of a file of prompts."""

    line: int
    """Line number, from 1."""
    prompt: str = ""
    id: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of `generate` that this prompt overrides, and its `seed`."""
    error: str = ""
    """Why the line is not a prompt."""


def read_requests(stream: IO[bytes], name: str) -> list[Request]:
    """Reads a file of prompts: JSONL if its name ends in `.jsonl` or its first line begins with a brace, else text."""
    requests: list[Request] = []
    is_jsonl = name.endswith(".jsonl")
    for number, line in enumerate(lines.read(stream), 1):
        if number == 1 and not name.endswith(".txt"):
            is_jsonl |= line.lstrip().startswith(b"{")
        requests.append(_request(number, line, is_jsonl))
    return requests


def open_requests(path: Path) -> list[Request]:
    """`read_requests` of a regular file; `RequestError` if it cannot be read."""
    try:
        with regular_files.open_binary(path) as stream:
            return read_requests(stream, str(path))
    except PacklmError as error:
        raise RequestError(f"the prompts: {error}") from None


def _request(number: int, line: bytes, is_jsonl: bool) -> Request:
    if (offset := line.find(b"\0")) >= 0:
        return Request(number, error=f"not text: byte {offset + 1} is NUL")
    text, error = lines.decode(line)
    if error or not is_jsonl:
        return _bounded(Request(number, text.strip(), error=error))
    value, error = lines.json_value(text)
    if error:
        return Request(number, error=error)
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        return Request(number, error='not an object with a string "prompt"')
    settings = {key: setting for key, setting in value.items() if key not in ("prompt", "id")}
    if unknown := sorted(set(settings) - {"seed", *DECODING_SETTINGS}):
        name = unknown[0][:60]
        hint = did_you_mean(name, DECODING_SETTINGS, "known are prompt, id, seed and the settings of generate")
        return Request(number, id=value.get("id"), error=f"unknown field {name}; {hint}")
    return _bounded(Request(number, value["prompt"], value.get("id"), settings))


def _bounded(request: Request) -> Request:
    """The request, or one with an error if its prompt is too long."""
    if len(request.prompt) <= MAX_PROMPT:
        return request
    error = f"a prompt of {len(request.prompt):,} characters; at most {MAX_PROMPT:,} are read"
    return Request(request.line, id=request.id, error=error)

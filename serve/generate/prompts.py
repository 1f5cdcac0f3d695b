"""Reads the prompts of a batch job (`serve.records`); a line that is not a prompt becomes a request with an error.

text     one prompt a line
jsonl    {"prompt": ..., "id": ..., "seed": ..., SETTING: ...}, all but the prompt optional; SETTING is one of `generate.*`, for this
         prompt alone; json: an array of such objects
csv, tsv the same as columns; an empty cell is a setting that is not given
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from packlm.base import regular_files
from packlm.base.errors import PacklmError, RequestError, did_you_mean
from packlm.config.generate import DECODING_SETTINGS

from ..records import LINE, InputRecord, RecordFile

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
    """Reads a file of prompts, which is what its name and first bytes say.

    Raises:
        RequestError: it is none that is read, or a table without the column `prompt`.
    """
    records = RecordFile(stream, name)
    if records.format in ("csv", "tsv") and "prompt" not in records.columns:
        found = ", ".join(records.columns) or "none"
        raise RequestError(f"{name}: no column 'prompt'; found {found}; a file of one prompt a line is called .txt")
    return [_request(record, records.format) for record in records]


def open_requests(path: Path) -> list[Request]:
    """`read_requests` of a regular file; `RequestError` if it cannot be read."""
    try:
        with regular_files.open_binary(path) as stream:
            return read_requests(stream, str(path))
    except PacklmError as error:
        raise RequestError(f"the prompts: {error}") from None


def _request(record: InputRecord, format: str) -> Request:
    number, value = record.number, record.fields
    if record.error or format == "text":
        return _bounded(Request(number, value.get(LINE, "").strip(), error=record.error))
    if format in ("csv", "tsv"):
        value = {name: cell for name, cell in value.items() if cell or name == "prompt"}
    if not isinstance(value.get("prompt"), str):
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

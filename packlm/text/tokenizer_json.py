"""Reads a `tokenizer.json` of unknown origin: whatever is wrong with it, and however the library fails on it, is one error."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from packlm.base import json_text, regular_files
from packlm.base.errors import PacklmError, RequestError

MAX_BYTES = 1 << 28
"""Largest file that is read (256 MiB)."""


def read(path: Path) -> str:
    """The text of a `tokenizer.json`; `RequestError` if there is no such file, or it is no text or no regular file."""
    if not path.exists():
        raise RequestError(f"{path}: no such tokenizer")
    try:
        return regular_files.read(path, MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not a tokenizer.json: {error}") from None
    except PacklmError as error:
        raise RequestError(str(error)) from None


def parse(text: str, name: str) -> Tokenizer:
    """The tokenizer that the library makes of this JSON; `name` is its name in messages.

    Raises:
        RequestError: it is not JSON, or the library refuses it or panics.
    """
    try:
        _check_far_ids(json_text.loads(text), name)
        with _no_panic_message():
            return Tokenizer.from_str(text)
    except PacklmError:  # raised by a signal
        raise
    except BaseException as error:  # the library raises bare Exceptions, and a BaseException for a panic
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RequestError(f"{name}: not a tokenizer.json: {error}") from None


def _check_far_ids(values: Any, name: str) -> None:
    """Raises `RequestError` for an id far beyond the number of tokens: the library would allocate for all ids below it."""
    vocab = values["model"].get("vocab") if isinstance(values, dict) and isinstance(values.get("model"), dict) else None
    ids = {token: id for token, id in vocab.items() if isinstance(id, int)} if isinstance(vocab, dict) else {}
    if max(ids.values(), default=0) > 2 * len(ids) + (1 << 20):
        check_no_gaps(ids, name)


def check_distinct_ids(ids: Mapping[str, int], name: str) -> None:
    """Raises `RequestError` if two tokens have the same id."""
    if len(set(ids.values())) < len(ids):
        seen: dict[int, str] = {}
        first, second = next((seen[id], token) for token, id in ids.items() if seen.setdefault(id, token) != token)
        raise RequestError(f"{name}: two tokens have the id {ids[second]}: {first!r} and {second!r}; give each its own")


def check_no_gaps(ids: Mapping[str, int], name: str) -> None:
    """Raises `RequestError` unless the ids of a vocabulary, each of one token, go from 0 to V - 1."""
    present = set(ids.values())
    if num_gaps := max(present, default=-1) + 1 - len(present):
        missing = next(id for id in count() if id not in present)
        problem = f"its vocabulary has {num_gaps:,} gaps: no token has id {missing}"
        raise RequestError(f"{name}: {problem}; number its tokens from 0 on, without gaps")


@contextmanager
def named_panic() -> Iterator[None]:
    """Makes a panic of the library in the block, which is a `BaseException`, a `PacklmError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise PacklmError(f"tokenizer.json: the library failed while encoding text ({error}); use another tokenizer") from None


@contextmanager
def _no_panic_message() -> Iterator[None]:
    """Discards what is written to standard error: a panic in the library prints there before it becomes an exception."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

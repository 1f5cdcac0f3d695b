"""A damaged line of a JSONL file costs that line alone, and is named."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from packlm.base import json_lines
from packlm.base.errors import PacklmError


class Line(BaseModel, strict=True):
    step: int


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"step": "1"}',
    b'{"step": true}',
    b'{"step": NaN}',
    b"\xff",
    b"[" * 50_000,
    b'{"step": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_line_is_left_out_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damaged + b'\n{"step": 3}\n{"step": 4')
    assert [values["step"] for _, values in json_lines.read(path, Line)] == [1, 3]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{path}: 1 damaged lines are left out; the first is line 2: ")


def test_a_reader_that_stops_early_hears_of_the_lines_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'x\n{"step": 2}\n{"step": 3}\n')
    for _, values in json_lines.read(path, Line):
        if values["step"] == 2:
            break
    assert "line 1" in caplog.text


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(PacklmError, match=r"metrics\.jsonl: a FIFO"):
        list(json_lines.read(tmp_path / "metrics.jsonl", Line))

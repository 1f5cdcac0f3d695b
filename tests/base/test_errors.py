"""Messages and exit statuses of commands that fail."""

import logging
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm.base import errors


def too_large_for_numpy() -> None:
    np.empty(1 << 60, np.uint8)


def too_large_for_torch() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def too_large_for_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 14.75 GiB." + " More." * 99)


@pytest.mark.parametrize("main", [too_large_for_numpy, too_large_for_torch, too_large_for_a_gpu])
def test_a_lack_of_memory_is_reported_with_its_remedy(main, caplog):
    with caplog.at_level(logging.INFO, "packlm"), pytest.raises(SystemExit) as ended:
        errors.run(main, less_memory="do with less")
    assert ended.value.code == 1
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL  # the only level that all ranks show
    text = record.getMessage()
    assert text.startswith("out of memory; ") and "allocate" in text and text.endswith("; do with less") and len(text) < 250


def test_another_error_of_a_library_keeps_its_traceback_in_a_file(caplog):
    def main():
        raise RuntimeError("shapes do not match")

    with pytest.raises(SystemExit) as ended:
        errors.run(main, less_memory="do with less")
    assert ended.value.code == 1
    (line,) = caplog.messages
    match = re.fullmatch(r"unexpected: RuntimeError: shapes do not match \(base/test_errors.py:\d+\); the full trace is in (\S+)", line)
    assert match, line
    trace = Path(match[1])
    assert "in main\n" in trace.read_text() and "RuntimeError: shapes do not match" in trace.read_text()
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600
    trace.unlink()


def test_a_signal_promises_to_resume_only_what_can_be():
    @errors.resumable()
    def job() -> None:
        raise KeyboardInterrupt("SIGTERM")

    with pytest.raises(errors.Stopped, match="stopped by SIGTERM; resume by running the same command again"):
        job()

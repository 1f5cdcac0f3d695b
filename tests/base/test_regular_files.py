"""Only regular files are read: anything else is an error of one line, at once."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.base import files, regular_files
from packlm.base.errors import PacklmError


def test_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a\u00e4", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    assert regular_files.read(tmp_path / "file") == b"a\xc3\xa4"
    assert regular_files.read_text(tmp_path / "link") == "a\u00e4"
    assert regular_files.read(tmp_path / "file", limit=3) == b"a\xc3\xa4"


@pytest.mark.parametrize(
    "kind", ["fifo", "socket", "folder", "zero", "random", "loop", "missing", "NUL", "surrogate", "large", "not UTF-8"]
)
def test_anything_else_is_an_error_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are limited to 108 bytes
    path = Path("a name")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "large":  # 2 GB, none of them on the disk
        path.touch()
        os.truncate(path, 1 << 31)
    elif kind == "not UTF-8":
        path.write_bytes(b"ab\xff")
    path = {"zero": Path("/dev/zero"), "random": Path("/dev/random"), "NUL": Path("a\0b"), "surrogate": Path("\ud800\n")}.get(kind, path)
    start = time.monotonic()
    with pytest.raises(PacklmError) as caught:
        regular_files.read_text(path)
    assert time.monotonic() - start < 1
    message = str(caught.value)
    assert "\n" not in message and message.encode() and regular_files.shown(path) in message


@pytest.mark.parametrize("read", [files.sha256, files.read_json, regular_files.read], ids=["digest", "JSON", "read"])
def test_a_file_that_cannot_be_read_to_its_end_is_named(read: Callable[[Path], object]) -> None:
    """As on a damaged disk; the memory of a process cannot be read from its first byte."""
    with pytest.raises(PacklmError, match="/proc/self/mem: cannot be read: Input/output error"):
        read(Path("/proc/self/mem"))


def test_a_fifo_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PacklmError, match="fifo: cannot be written"):
        files.write_text(tmp_path / "fifo", "text")

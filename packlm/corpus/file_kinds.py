"""What kind of file it is, by its name and its first bytes: braces are not taken for text, nor compressed bytes for a damaged file.

The name decides where it says how a file is read (`.jsonl`, `.csv`, `.txt`, ...). The bytes decide between the ways to write `.json`, and
object where they are certainly something else than the name says, or than text where the name says nothing.
"""

import re
from typing import NamedTuple

from packlm.base import json_text
from packlm.corpus.delimited import TAB_SUFFIXES
from packlm.corpus.encodings import with_zeros

HEAD_BYTES = 1 << 16
"""How many bytes of the beginning of a (decompressed) file are looked at."""

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonlines": "jsonl", ".csv": "csv", ".parquet": "parquet", ".json": "json"}
_FORMATS |= dict.fromkeys(TAB_SUFFIXES, "csv")
_TEXT = {"", ".txt", ".text", ".md", ".markdown", ".rst", ".tex"}
_MARKUP = {".html", ".htm", ".xhtml", ".xml"}
_NAME = "let its name end in .{}"
_PACKED = {
    b"\x1f\x8b": ("gzip data", _NAME.format("gz")),
    b"\x28\xb5\x2f\xfd": ("zstd data", _NAME.format("zst")),
    b"\xfd7zXZ\0": ("xz data", "decompress it"),
    b"BZh": ("bzip2 data", "decompress it"),
    b"PK\x03\x04": ("a zip archive (as .docx, .odt and .epub are)", "extract its text"),
}
_BINARY = (b"\x89PNG", b"%PDF", b"\xff\xd8\xff", b"GIF8", b"\x7fELF", b"ARROW1", b"PAR1")
_CONTROL = bytes([*range(0x09), *range(0x0E, 0x20), 0x7F])
_JSON_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"[^"\n]*"\s*:')
_MARKUP_START = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html[\s>]|<\?xml\s)", re.IGNORECASE)


class Kind(NamedTuple):
    """How a file is read, and what speaks against it."""

    format: str
    """text, jsonl, json, csv or parquet, as its name and bytes say; empty if it cannot be read as it is."""
    problem: str = ""
    """What it looks like, if that is not what its name says: it is to be refused, unless its format is set. Empty if all is well."""
    remedy: str = ""
    """What to do without any setting (in UTF-16: the setting of the encoding)."""
    what: str = ""
    """`packed`, `utf-16` or `binary`, where the bytes are not text that can be read as it is."""

    def refusal(self, setting: str) -> str:
        """The end of a message: what it looks like, and what to do; `setting`: the option that sets the format, `--corpus.format`."""
        if self.what:
            return f"{self.problem}; {self.remedy}"
        as_format = f"read it so with {setting} {self.format}, " if self.format else ""
        return f"{self.problem}; {as_format}{self.remedy}, or read it as text with {setting} text"


def kind(name: str, head: bytes) -> Kind:
    """The kind of a file.

    Args:
        name: its name, without the suffix of a compression.
        head: its first `HEAD_BYTES` bytes, decompressed.
    """
    suffix = suffix_of(name)
    by_name = "text" if suffix in _TEXT else _FORMATS.get(suffix)
    if by_name != "parquet" and (unreadable := _unreadable(head)):
        if unreadable.what != "utf-16":
            return unreadable
        decoded = kind(name, head.decode(with_zeros(head), "replace").encode())
        return decoded if decoded.problem else unreadable._replace(format=decoded.format)
    if by_name == "json":
        return Kind("jsonl" if _is_lines(head) else "json")
    if by_name not in (None, "text"):
        return Kind(str(by_name))
    if suffix in _MARKUP or _MARKUP_START.match(head):
        return Kind("", "looks like HTML or XML", "extract its text")
    if _JSON_OBJECT.match(head):
        lines = _is_lines(head)
        return (
            Kind("jsonl", "looks like JSON Lines", _NAME.format("jsonl"))
            if lines
            else Kind("json", "looks like JSON", _NAME.format("json"))
        )
    if by_name is None and _is_table(head):
        return Kind("csv", "looks like columns separated by tabs", _NAME.format("tsv"))
    return Kind("text")


def suffix_of(name: str) -> str:
    """The last suffix of a file's name, in lower case; empty if it has none. (pathlib takes as long as opening the file.)"""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def looks_like(data: bytes) -> str:
    """`, which looks like ...`, with the remedy, for a message about bytes that could not be read as text; empty if they could be."""
    found = _unreadable(data[:HEAD_BYTES])
    return f", which {found.problem} ({found.remedy})" if found else ""


def _unreadable(head: bytes) -> Kind | None:
    """The kind of bytes that are not text, or not in an encoding that extends ASCII."""
    for magic, (content, remedy) in _PACKED.items():
        if head.startswith(magic):
            return Kind("", f"looks like {content}", remedy, "packed")
    if head[257:262] == b"ustar":
        return Kind("", "looks like a tar archive", "extract its files", "packed")
    if encoding := with_zeros(head):
        name = "UTF-32" if "32" in encoding else "UTF-16"
        return Kind("text", f"looks like {name}", f"--corpus.encoding {encoding}", "utf-16")
    start = head[: 1 << 12]
    if start.startswith(_BINARY) or len(start) - len(start.translate(None, _CONTROL)) > 4 + len(start) // 20:
        return Kind("", "looks like a binary file", "remove it from the corpus", "binary")
    return None


def _is_lines(head: bytes) -> bool:
    """Whether JSON is written one value a line; true for one line, of which the end is not in sight."""
    line, line_feed, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not line_feed:
        return not line.startswith(b"[")
    try:
        return isinstance(json_text.loads(line.decode(errors="replace")), dict)
    except ValueError:
        return False


def _is_table(head: bytes) -> bool:
    """Whether all of at least three lines have the same number of tabs, not zero."""
    lines = [line for line in head.split(b"\n")[: None if len(head) < HEAD_BYTES else -1] if line.strip()]
    counts = {line.rstrip(b"\r").count(b"\t") for line in lines}
    return len(lines) >= 3 and len(counts) == 1 and 0 not in counts

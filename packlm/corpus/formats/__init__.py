"""Corpus formats, by the names of `corpus.format`: one file and one object for each.

A new format is a file here, with a subclass of `Format` that it lists in its `FORMATS`, and its name in `packlm/config/corpus.py`.
Which files are read in which format under `corpus.format = "auto"`: `packlm/corpus/file_kinds.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus import file_kinds, streams
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Compression, Part, Source

FORMATS: dict[str, Format] = {}
for _module in iter_modules(__path__):
    FORMATS |= import_module(f"{__name__}.{_module.name}").FORMATS
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}


def open_source(source: Source, setting: str) -> Source:
    """A source that is a file, with its format and compression, by its name and its first bytes.

    Args:
        setting: `corpus.format`; unless it is "auto", the bytes count only where no format can read them.

    Raises:
        RequestError: a file that cannot be read so, or that looks like something else than text and does not say what it is.
    """
    name = source.path.name if source.path else source.name
    if compression := _COMPRESSIONS.get(file_kinds.suffix_of(name)):
        source, name = replace(source, compression=compression), name.rpartition(".")[0]
    found = file_kinds.kind(name, streams.head(source, file_kinds.HEAD_BYTES))
    suffix = file_kinds.suffix_of(name)
    by_suffix = next((key for key, format in FORMATS.items() if suffix in format.suffixes), None)
    format = setting if setting != "auto" else by_suffix or found.format
    is_something_else = found.problem and not found.what and setting == "auto" and not by_suffix
    if is_something_else or (found.what == "packed" and format != "parquet"):
        raise RequestError(f"{source.where}: {found.refusal('--corpus.format')}")
    source = replace(source, format=format) if format and format != source.format else source
    if source.compression and not FORMATS[source.format].compressible:
        raise RequestError(f"{source.where}: a compressed {source.format} file cannot be read; decompress it")
    return source


def is_numbered(source: Source, rules: Corpus) -> bool:
    """Whether the names of its documents end in their numbers."""
    return FORMATS[source.format].is_numbered(rules)


def scan(
    source: Source, rules: Corpus, part_bytes: int = 1 << 25, advance: Callable[[int], object] = lambda size: None
) -> tuple[list[Part], str]:
    """Reads all bytes of a source once; returns its parts in order, together the whole source, and the SHA-256 of the bytes.

    Args:
        part_bytes: least size of each part but the last.
        advance: called with the number of bytes read since the last call.

    Raises:
        PacklmError: a file that cannot be read; Parquet that is damaged or lacks the column.
    """
    try:
        return FORMATS[source.format].scan(source, rules, part_bytes, advance)
    except OSError as error:
        raise PacklmError(f"{source.where}: cannot be read: {error.strerror}") from None


def whole(source: Source, rules: Corpus) -> Part:
    """The source as one part, without reading it."""
    return FORMATS[source.format].whole(source, rules)


def read(part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
    """The documents of a part as `Format.read` yields them."""
    return FORMATS[part.source.format].read(part, rules, counts)

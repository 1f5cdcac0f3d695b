"""Corpus formats, by the names of `corpus.format`: one file and one object for each.

A new format is a file here, with a subclass of `Format` that it lists in its `FORMATS`, and its name in `packlm/config/corpus.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Compression, Part, Source

FORMATS: dict[str, Format] = {}
for _module in iter_modules(__path__):
    FORMATS |= import_module(f"{__name__}.{_module.name}").FORMATS
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}


def detect(path: Path, setting: str) -> tuple[str, Compression | None]:
    """The format (by suffix where `corpus.format` is "auto"; text for unknown suffixes) and the compression of a file.

    Raises:
        RequestError: a compressed file of a format that cannot be read so.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes.pop()) if suffixes and suffixes[-1] in _COMPRESSIONS else None
    name = setting
    if setting == "auto":
        name = next((name for name, format in FORMATS.items() if suffixes and suffixes[-1] in format.suffixes), "text")
    if compression and not FORMATS[name].compressible:
        raise RequestError(f"{path}: a compressed {name} file cannot be read; decompress it")
    return name, compression


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

"""Which files of a folder are the corpus, and which are odd: notes about it, of another kind, unreadable, or nearly empty."""

import glob
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

from packlm.base.errors import PacklmError, RequestError
from packlm.corpus import bad_files, discovery, file_kinds, formats, streams
from packlm.corpus.sources import Source

_NOTES = re.compile(
    r"(readme|licen[cs]e|copying|changelog)([-_ ].*)?|"
    r"copyright|authors|contributors|contributing|citation|notice|makefile|requirements|manifest",
    re.IGNORECASE,
)
_SPLITS = (
    dict.fromkeys(("train", "training"), "train") | dict.fromkeys(("valid", "validation", "val", "dev"), "validation") | {"test": "test"}
)
"""Words in the names of files and folders that say which split they are."""
_MIN_BYTES = 20
_MIN_SHARE = 0.05
"""An ending that fewer of the bytes and of the files have is odd."""
_MAX_LISTED = 100
"""Files that a recipe lists by name, where no folder and no ending says which they are."""


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a folder."""

    sources: list[Source]
    """Those of the corpus, with their formats and likely encodings."""
    odd: dict[str, str]
    """Path -> what is odd about it."""
    locations: dict[str, list[str]]
    """Split -> its locations: `train` for all sources; the others where the names of all files say which split they are."""
    splits: dict[str, str]
    """Name of a source -> its split, where the names say so; otherwise empty."""
    still_read: list[str]
    """The odd files that `locations` include, since no pattern leaves them out."""
    endings: Counter[str]
    """Of all files; of `a.txt.gz`, `.txt.gz`."""


def look(folder: str) -> CorpusFiles:
    """The files of a folder, or a single file.

    Raises:
        RequestError: there is no such folder; it holds no file of text.
    """
    paths = discovery.list_files(folder)
    candidates, odd = list[Source](), dict[str, str]()
    for name, path in paths:
        try:
            source = formats.open_source(Source(name, path), "auto")
        except PacklmError as error:
            odd[str(path)] = str(error).removeprefix(f"{path}: ").partition(";")[0]
            continue
        if file_kinds.kind("", streams.head(source, file_kinds.HEAD_BYTES)).what == "binary" and source.format != "parquet":
            odd[str(path)] = "looks like a binary file"
        elif source.state()[0] < _MIN_BYTES:
            odd[str(path)] = "nearly empty"
        elif len(paths) > 1 and _NOTES.fullmatch(path.name.partition(".")[0]):
            odd[str(path)] = "a note about the corpus, by its name"
        else:
            candidates.append(source)
    sizes, counts = Counter[str](), Counter[str]()
    for source in candidates:
        sizes[_ending(source.name)] += source.state()[0]
        counts[_ending(source.name)] += 1
    rare = {name for name in sizes if max(sizes[name] / sizes.total(), counts[name] / counts.total()) < _MIN_SHARE}
    main = sizes.most_common(1)[0][0] if sizes else ""
    odd |= {str(source.path): f"most files end in {main or 'no ending'}" for source in candidates if _ending(source.name) in rare}
    sources = [source for source in candidates if str(source.path) not in odd]
    if not sources:
        found = "; ".join(f"{path}: {reason}" for path, reason in list(odd.items())[:3])
        raise RequestError(f"{folder}: no file of text in it ({found}); give a folder of text, JSONL, CSV or Parquet files")
    splits = _splits(sources)
    locations = (
        {split: [str(source.path) for source in sources if splits[source.name] == split] for split in sorted({*splits.values()})}
        if splits
        else {"train": _locations(folder, sources, odd)}
    )
    read = {str(path) for places in locations.values() for location in places for _, path in discovery.list_files(location)}
    endings = Counter(_ending(name) for name, _ in paths)
    return CorpusFiles(bad_files.with_encodings(sources), odd, locations, splits, [path for path in odd if path in read], endings)


def _locations(folder: str, sources: list[Source], odd: dict[str, str]) -> list[str]:
    """The folder if nothing in it is odd; else patterns of the endings; else, if these include odd files, some files by name."""
    if not odd:
        return [folder]
    endings = sorted({_ending(source.name) for source in sources})
    if all(endings) and not any(_ending(path) in endings for path in odd):
        return [str(Path(glob.escape(folder)) / "**" / f"*{ending}") for ending in endings]
    return [str(source.path) for source in sources] if len(sources) <= _MAX_LISTED else [folder]


def _splits(sources: list[Source]) -> dict[str, str]:
    """The split of each source, if the names of all of them say so, one is `train`, and they are few."""
    splits: dict[str, str] = {}
    for source in sources:
        named = {_SPLITS[word] for word in re.split(r"[^a-z]+", source.name.lower()) if word in _SPLITS}
        if len(named) != 1:
            return {}
        (splits[source.name],) = named
    return splits if "train" in splits.values() and len({*splits.values()}) > 1 and len(sources) <= _MAX_LISTED else {}


def _ending(name: str) -> str:
    suffixes = PurePath(name).suffixes
    return "".join(suffixes[-2:] if suffixes and suffixes[-1] in (".gz", ".zst") else suffixes[-1:])

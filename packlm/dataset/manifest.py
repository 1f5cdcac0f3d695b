"""The manifest of a dataset (its inputs, sizes and digests), the dataset card derived from it, and the check of files against it."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import ConfigDict

from packlm.base import escape, files, sealed_json, verified_files
from packlm.base.errors import PacklmError, RequestError

VERSION = 4
View = Literal["fixed", "sentences"]
VIEWS: tuple[View, ...] = ("fixed", "sentences")
SPLITS = ("train", "validation", "test")
EOS, UNK = "<eos>", "<unk>"
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its rows, its tokens, and the digest of its bytes."""

    __pydantic_config__ = _STRICT
    rows: int
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """The sizes of a split, and the files of both views, in order.

    `tokens` counts the targets, `<eos>` included; `words` the whitespace-separated words of the original text and `bytes` its UTF-8
    bytes, whitespace between sentences included; `unknown` the tokens that are `<unk>`; `overlong` the sentences of more than
    `corpus.max_tokens` tokens, which `sentences` counts as the pieces they were split into.
    """

    __pydantic_config__ = _STRICT
    documents: int
    sentences: int
    tokens: int
    words: int
    bytes: int
    unknown: int
    overlong: int
    longest_sentence: int
    """Tokens of the longest sentence, `<eos>` included."""
    files: dict[str, dict[str, Shard]]
    """View -> file name (relative to the dataset) -> shard, in the order of the text."""


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    __pydantic_config__ = _STRICT
    settings: dict[str, Any]
    """The corpus, tokenizer and dataset settings that change its content."""
    digests: dict[str, str]
    """Digests of `settings`, `corpus` (all sources), `tokenizer`, all `ids` in order, and `content` (all shards together)."""
    vocab_size: int
    length: int
    """Targets in a fixed row."""
    lossless: bool
    """Whether sentences and gaps reproduce every document exactly."""
    splits: dict[str, Split]
    counts: dict[str, int]
    """Number of things skipped, replaced, dropped or split, by reason."""
    files: dict[str, str]
    """All other files (sources, tokenizer, report) -> SHA-256; without the manifest and the card, which are derived from this object."""
    version: int = VERSION

    def split(self, name: str) -> Split:
        """The named split; `RequestError` with the list of splits if there is none of that name."""
        if name not in self.splits:
            raise RequestError(f"the dataset has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` and the dataset card."""
    sealed_json.write(folder / "manifest.json", asdict(manifest))
    files.write_text(folder / "README.md", card(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        RequestError: no dataset there (the message names the command that builds one), or one of another version.
        PacklmError: the file is damaged; the message names the key.
    """
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise RequestError(f"{folder}: no dataset here (no manifest.json); build it with `packlm preprocess`")
    values = files.read_json(path)
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        problem = f"dataset version {version!r}, this program reads {VERSION}"
        raise RequestError(f"{path}: {problem}; rebuild with `packlm preprocess --rebuild`")
    manifest = sealed_json.parse(values, Manifest, path, "rebuild with `packlm preprocess --rebuild`")
    for name, split in manifest.splits.items():
        if set(split.files) != set(VIEWS):
            raise PacklmError(f"{path}: splits.{name}.files: expected the views {', '.join(VIEWS)}, got {', '.join(split.files)}")
    return manifest


def shard_digests(folder: Path, manifest: Manifest, view: View, split: str) -> dict[Path, str]:
    """The Parquet files of a view of a split, in the order of the text -> SHA-256; `RequestError` if there is no such split."""
    return {Path(folder) / name: shard.sha256 for name, shard in manifest.split(split).files[view].items()}


def open_shards(folder: Path, manifest: Manifest, view: View, split: str) -> Iterator[pq.ParquetFile]:
    """Opens the Parquet files of a view of a split, one after the other, each held against the manifest first.

    Raises:
        RequestError: there is no such split.
        PacklmError: a file is not the one that the manifest describes.
    """
    for path, sha256 in shard_digests(folder, manifest, view, split).items():
        with described(folder, manifest), verified_files.open_checked(path, sha256) as stream, pq.ParquetFile(stream) as shard:
            yield shard


@contextmanager
def described(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Says of a damaged file within the block why it is not the one that the manifest describes, and the remedy."""
    try:
        yield
    except verified_files.Damaged as error:
        raise PacklmError(f"{error}; {_reason(folder, manifest)}") from None


def _reason(folder: Path, manifest: Manifest) -> str:
    try:
        rebuilt = read_manifest(folder) != manifest
    except PacklmError:
        rebuilt = False
    if rebuilt:
        return f"{folder} was built anew since this began to read it; run the same command again"
    return f"`packlm preprocess verify {folder} --repair --config C`, with the configuration of the build, makes damaged files again"


def read_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> dict[str, str]:
    """The text of some of `manifest.files`, by name; `PacklmError` if one is not the one that the manifest describes."""
    with described(folder, manifest):
        return {name: verified_files.read(Path(folder) / name, manifest.files[name]).decode() for name in names}


def document_names(folder: Path, manifest: Manifest, split: str, sentences: np.ndarray) -> list[str]:
    """The document's name of each of some sentences of a split, given by their indices."""
    names: dict[int, str] = {}
    start = 0
    for shard in open_shards(folder, manifest, "sentences", split):
        column = shard.read(columns=["document"]).column(0)
        names |= {index: column[index - start].as_py() for index in sentences.tolist() if start <= index < start + len(column)}
        start += len(column)
    return [names[index] for index in sentences.tolist()]


def damaged(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Checks every file against the manifest; returns file name -> problem, for each file that is missing or differs."""
    expected = {name: shard.sha256 for split in manifest.splits.values() for view in VIEWS for name, shard in split.files[view].items()}
    expected |= {**manifest.files, "README.md": hashlib.sha256(card(manifest).encode()).hexdigest()}
    actual = {name: files.sha256(folder / name) if (folder / name).is_file() else "no such file" for name in expected}
    return {name: f"expected sha256 {digest}, got {actual[name]}" for name, digest in expected.items() if actual[name] != digest}


def content_digest(splits: dict[str, Split]) -> str:
    """The digest of all shards of both views together."""
    return files.digest({name: [shard.sha256 for view in VIEWS for shard in split.files[view].values()] for name, split in splits.items()})


def card(manifest: Manifest) -> str:
    """The dataset card: YAML that declares both views (and the content's digest, so that caches notice a rebuild), and a table."""
    lines = ["---", "configs:"]
    for view in VIEWS:
        lines += [f"- config_name: {view}", f"  description: {manifest.digests['content']}"]
        lines += ["  default: true"] if view == "sentences" else []
        lines += ["  data_files:"]
        for name in manifest.splits:
            lines += [f"  - split: {name}", f"    path: {view}/{name}-*.parquet"]
    lines += ["---", "", "# A packlm dataset", ""]
    lines += [
        f"Tokens are ids of `tokenizer.json` ({manifest.vocab_size:,} entries). `fixed` holds rows of {manifest.length} targets "
        f"(`ids` has one more, the input before the first), `sentences` one sentence a row, ending in `{EOS}`.",
        "",
        "| split | documents | sentences | tokens | words | bytes | unknown |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, split in manifest.splits.items():
        sizes = (split.documents, split.sentences, split.tokens, split.words, split.bytes, split.unknown)
        lines.append(f"| {name} | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    if manifest.counts:
        counts = [f"{escape.markdown(reason)}: {count:,}" for reason, count in manifest.counts.items()]
        lines += ["", f"Counted on the way: {'; '.join(counts)}."]
    return "\n".join(lines) + "\n"

"""The manifest of a dataset: what was made from what, and how much of it there is; and the dataset card, which follows from it."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from packlm.base import files
from packlm.base.errors import PacklmError, RequestError

VERSION = 3
View = Literal["fixed", "sentences"]
VIEWS: tuple["View", ...] = ("fixed", "sentences")
SPLITS = ("train", "validation", "test")
EOS, UNK = "<eos>", "<unk>"


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its rows, the tokens it adds to its split, and the digest of its bytes."""

    rows: int
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """How much there is in a split, and the files of both views, in order.

    `tokens` counts the targets, `<eos>` included; `words` the white-space words of the original text and `bytes` its UTF-8
    bytes, white space between sentences included; `unknown` the tokens that are `<unk>`; `overlong` the sentences of more than
    `corpus.max_tokens`, which `sentences` counts as the pieces they were split into.
    """

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
    """What the dataset is: see the module's docstring and the field names; written as `manifest.json`."""

    settings: dict[str, Any]
    """The corpus, tokenizer and dataset settings it was made with (those that change its content)."""
    corpus: dict[str, str]
    """Document file or source -> SHA-256 of its bytes."""
    digests: dict[str, str]
    """Digests of `settings`, `corpus`, `tokenizer` and of all `ids` in order; `content` is that of all shards together."""
    vocab_size: int
    length: int
    """Targets in a fixed row."""
    lossless: bool
    """Whether sentences and gaps give back every document to the letter."""
    splits: dict[str, Split]
    counts: dict[str, int]
    """Whatever was skipped, replaced, dropped or cut, by reason."""
    files: dict[str, str]
    """All other files (tokenizer, report) -> SHA-256; manifest and card follow from this object."""
    version: int = VERSION

    def split(self, name: str) -> Split:
        """The named split; `RequestError` naming those there are if it is not among them."""
        if name not in self.splits:
            raise RequestError(f"the dataset has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` and the dataset card."""
    files.write_json(folder / "manifest.json", asdict(manifest))
    files.write_text(folder / "README.md", card(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        RequestError: no dataset there (the message names the command that makes one), or one of another version.
        PacklmError: the file is damaged.
    """
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise RequestError(f"{folder}: no dataset here (no manifest.json); `make preprocess` or `python -m preprocess` makes it")
    values = files.read_json(path)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        found = values.get("version") if isinstance(values, dict) else values
        raise RequestError(f"{path}: dataset version {found!r}, this program reads {VERSION}; `python -m preprocess --rebuild` renews it")
    missing = {item.name for item in fields(Manifest)} ^ set(values)
    if missing:
        raise PacklmError(f"{path}: damaged: missing or unknown entries {', '.join(sorted(missing))}")
    try:
        splits = {name: _read_split(split) for name, split in values.pop("splits").items()}
        manifest = Manifest(splits=splits, **values)
        follow = {"settings": files.digest(manifest.settings), "corpus": corpus_digest(manifest.corpus), "content": content_digest(splits)}
        wrong = [name for name, digest in follow.items() if manifest.digests[name] != digest]
    except (TypeError, KeyError, AttributeError) as error:
        raise PacklmError(f"{path}: damaged: {error}") from None
    if wrong:
        raise PacklmError(f"{path}: damaged: its {wrong[0]} is not what its digest says; `python -m preprocess --rebuild` makes it anew")
    return manifest


def _read_split(values: dict[str, Any]) -> Split:
    shards = {view: {name: Shard(**shard) for name, shard in values["files"][view].items()} for view in VIEWS}
    return Split(**{**values, "files": shards})


def paths(folder: Path, manifest: Manifest, view: View, split: str) -> list[Path]:
    """The Parquet files of a view of a split, in the order of the text; `RequestError` if the split is not there."""
    return [Path(folder) / name for name in manifest.split(split).files[view]]


def document_names(folder: Path, manifest: Manifest, split: str, sentences: np.ndarray) -> list[str]:
    """The names of the documents that some sentences of a split, given by their numbers, belong to."""
    found: dict[int, str] = {}
    start = 0
    for path in paths(folder, manifest, "sentences", split):
        column = pq.ParquetFile(path).read(columns=["document"]).column(0)
        here = [number for number in sentences.tolist() if start <= number < start + len(column)]
        found |= {number: column[number - start].as_py() for number in here}
        start += len(column)
    return [found[number] for number in sentences.tolist()]


def corpus_digest(corpus: dict[str, str]) -> str:
    """The digest of all sources in order."""
    return files.digest(list(corpus.items()))


def content_digest(splits: dict[str, Split]) -> str:
    """The digest of all shards of both views together."""
    return files.digest({name: [shard.sha256 for view in VIEWS for shard in split.files[view].values()] for name, split in splits.items()})


def card(manifest: Manifest) -> str:
    """The dataset card: YAML that declares both views (with the content's digest, so that caches notice a rebuild), then a table."""
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
        counted = (split.documents, split.sentences, split.tokens, split.words, split.bytes, split.unknown)
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counted) + " |")
    if manifest.counts:
        lines += ["", "Counted on the way: " + "; ".join(f"{reason}: {count:,}" for reason, count in manifest.counts.items()) + "."]
    return "\n".join(lines) + "\n"

"""The dataset on disk: the one module that writes and reads shards, manifest and card.

    DIR/README.md                                 card; its YAML lets `load_dataset(DIR, "fixed" | "sentences")` open both views
    DIR/manifest.json                             what was made from what, and how much of it there is
    DIR/tokenizer.json, tokenizer_config.json
    DIR/fixed/train-00000-of-00008.parquet        rows of L targets: ids (L + 1), begins, num_targets
    DIR/sentences/train-00000-of-00008.parquet    ids (ending in <eos>), document, position, words, bytes, joined, lead, gap
    DIR/report/                                   lengths and frequencies, as plots and as numbers

Bytes depend on the content alone: fixed row groups, no times, no paths.
"""

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.errors import PacklmError, RequestError

VERSION = 3
VIEWS: tuple["View", ...] = ("fixed", "sentences")
SPLITS = ("train", "validation", "test")
EOS, UNK = "<eos>", "<unk>"
ROW_GROUP = {"fixed": 4096, "sentences": 16384}
_WRITING: dict[str, dict[str, Any]] = {
    "fixed": {"use_dictionary": False, "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT"}},
    "sentences": {
        "use_dictionary": ["position", "lead", "gap"],
        "column_encoding": {"ids.list.element": "BYTE_STREAM_SPLIT", "document": "DELTA_BYTE_ARRAY"},
    },
}
"""How Parquet is told to write. Ids are small numbers in four bytes: the streams of their high bytes are quick to compress and small.
Names of lines differ in their last digits only."""

View = Literal["fixed", "sentences"]


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


def shard_name(view: View, split: str, index: int, count: int) -> str:
    """`fixed/train-00000-of-00008.parquet`, relative to the dataset's folder."""
    return f"{view}/{split}-{index:05d}-of-{count:05d}.parquet"


def id_type(vocab_size: int) -> "np.dtype[Any]":
    """uint16 where the vocabulary allows, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def fixed_table(ids: np.ndarray, opens: np.ndarray, starts: np.ndarray, stops: np.ndarray, before: int, like: "Like") -> pa.Table:
    """Rows of the fixed view.

    Args:
        ids: [N] target ids, in order.
        opens: rising indices of those that open a document.
        starts, stops: [R] targets [start, stop) of each row, end to end, at most `like.length` of them.
        before: the id that precedes the first target.

    Returns a table with, for each row: `ids`, length + 1 ids of which the first is the input before the first target (a short
    row is filled up with its own last id, which `num_targets` leaves out); `begins`, each p where target ids[p + 1] opens a
    document; `num_targets`.
    """
    width = like.length + 1
    padded = np.zeros(len(ids) + width, id_type(like.vocab_size))
    padded[0], padded[1 : len(ids) + 1] = before, ids
    # Row by row: an index of every id would take four times the memory of the ids, or more.
    rows = np.lib.stride_tricks.sliding_window_view(padded, width)[starts]
    short = np.flatnonzero(stops - starts < like.length)
    rows[short] = np.where(np.arange(width) > (stops - starts)[short, None], padded[stops[short], None], rows[short])
    low, high = np.searchsorted(opens, starts), np.searchsorted(opens, stops)
    begins = opens[low[0] : high[-1]] - np.repeat(starts, high - low) if len(starts) else opens[:0]
    offsets = np.concatenate([low, high[-1:]]) - low[:1] if len(starts) else np.zeros(1)
    schema = _schema("fixed", like)
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=schema.field("ids").type)
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(begins.astype(np.int32)))
    return pa.table({"ids": values, "begins": lists, "num_targets": (stops - starts).astype(np.int32)}, schema=schema)


def sentences_table(ids: np.ndarray, ends: np.ndarray, columns: dict[str, Any], like: "Like") -> pa.Table:
    """Rows of the sentences view.

    Args:
        ids: [N] ids of all sentences end to end, each ending in `<eos>`.
        ends: [S] index in `ids` after each sentence's `<eos>`.
        columns: [S] each: `document`, `position` (the document's name and the sentence's number in it, from 0), `words`, `bytes` (of the
            sentence's own text), `joined` (an overlong sentence that goes on in the next row), `lead`, `gap` (white space before it,
            only where it opens a document, and after it).
    """
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids.astype(id_type(like.vocab_size), copy=False)))
    return pa.table({"ids": lists, **columns}, schema=_schema("sentences", like))


@dataclass(frozen=True)
class Like:
    """What the types of a dataset's columns follow from."""

    vocab_size: int
    length: int
    """Targets in a fixed row."""


def _schema(view: View, like: Like) -> pa.Schema:
    """Arrow schema with the features that `datasets` reads from a Parquet file's metadata."""
    kind = id_type(like.vocab_size).name
    id_value, number, text, mark = ({"dtype": name, "_type": "Value"} for name in (kind, "int32", "string", "bool"))
    features: dict[str, Any]
    if view == "fixed":
        types: dict[str, pa.DataType] = {"ids": pa.list_(pa.from_numpy_dtype(kind), like.length + 1)}
        types |= {"begins": pa.list_(pa.int32()), "num_targets": pa.int32()}
        features = {
            "ids": {"feature": id_value, "length": like.length + 1, "_type": "List"},
            "begins": {"feature": number, "_type": "List"},
            "num_targets": number,
        }
    else:
        types = {"ids": pa.list_(pa.from_numpy_dtype(kind)), "document": pa.string(), "position": pa.int32(), "words": pa.int32()}
        types |= {"bytes": pa.int32(), "joined": pa.bool_(), "lead": pa.string(), "gap": pa.string()}
        features = {"ids": {"feature": id_value, "_type": "List"}, "document": text, "position": number, "words": number}
        features |= {"bytes": number, "joined": mark, "lead": text, "gap": text}
    return pa.schema(list(types.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


class ShardWriter:
    """Writes one shard's Parquet file, atomically, in row groups that do not depend on how its tables were cut.

    As a context manager: the file is there once the block has ended well; `rows` counts what was written.
    """

    def __init__(self, path: Path, view: View, like: Like):
        self.path, self.view = Path(path), view
        self._size = ROW_GROUP[view]
        self._schema = _schema(view, like)
        self._options: dict[str, Any] = {"compression": "zstd", **_WRITING[view]}
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> "ShardWriter":
        self._open = ExitStack()
        stream = self._open.enter_context(files.atomic(self.path))
        self._parquet = self._open.enter_context(pq.ParquetWriter(stream, self._schema, **self._options))
        return self

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self.rows += table.num_rows
        self._waiting.append(table)
        held = sum(part.num_rows for part in self._waiting)
        if held >= self._size:
            whole = pa.concat_tables(self._waiting).combine_chunks()
            for start in range(0, held - held % self._size, self._size):
                self._parquet.write_table(whole.slice(start, self._size), row_group_size=self._size)
            self._waiting = [whole.slice(held - held % self._size)]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            rest = pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
            if rest.num_rows:
                self._parquet.write_table(rest, row_group_size=self._size)
        self._open.__exit__(kind, error, trace)


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


def damaged(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Checks every file against the manifest; returns file name -> what is wrong with it, for each that differs."""
    expected = {name: shard.sha256 for split in manifest.splits.values() for view in VIEWS for name, shard in split.files[view].items()}
    expected |= {**manifest.files, "README.md": hashlib.sha256(card(manifest).encode()).hexdigest()}
    found = {name: files.sha256(folder / name) if (folder / name).is_file() else "no such file" for name in expected}
    return {name: f"expected sha256 {digest}, got {found[name]}" for name, digest in expected.items() if found[name] != digest}


def corpus_digest(corpus: dict[str, str]) -> str:
    """The digest of all sources in order."""
    return files.digest(list(corpus.items()))


def content_digest(splits: dict[str, Split]) -> str:
    """The digest of all shards of both views together."""
    return files.digest({name: [shard.sha256 for view in VIEWS for shard in split.files[view].values()] for name, split in splits.items()})


def ids_digest(ids: np.ndarray) -> str:
    """The SHA-256 of ids as little-endian uint32, whatever type they are stored in."""
    return hashlib.sha256(np.ascontiguousarray(ids, dtype="<u4").tobytes()).hexdigest()


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

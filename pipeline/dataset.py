"""The dataset on disk: the one module that writes and reads shards, manifest and card.

    DIR/README.md                                 card; its YAML lets `load_dataset(DIR, "fixed" | "sentences")` open both views
    DIR/manifest.json                             what was made from what, and how much of it there is
    DIR/tokenizer.json, tokenizer_config.json
    DIR/fixed/train-00000-of-00008.parquet        rows of L targets: ids (L + 1), begins, num_targets
    DIR/sentences/train-00000-of-00008.parquet    ids (ending in <eos>), document, position, words, bytes, lead, gap

Bytes depend on the content alone: fixed row groups, no times, no paths.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.errors import PacklmError, RequestError

VERSION = 1
VIEWS: tuple["View", ...] = ("fixed", "sentences")
SPLITS = ("train", "validation", "test")
EOS, UNK = "<eos>", "<unk>"
ROW_GROUP = {"fixed": 4096, "sentences": 16384}

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
    bytes, white space between sentences included; `unknown` the tokens that are `<unk>`.
    """

    documents: int
    sentences: int
    tokens: int
    words: int
    bytes: int
    unknown: int
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
    counts: dict[str, int] = field(default_factory=dict)
    """Whatever was skipped, replaced or dropped, by reason."""
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
    except (TypeError, KeyError, AttributeError) as error:
        raise PacklmError(f"{path}: damaged: {error}") from None
    return Manifest(splits=splits, **values)


def _read_split(values: dict[str, Any]) -> Split:
    shards = {view: {name: Shard(**shard) for name, shard in values["files"][view].items()} for view in VIEWS}
    return Split(**{**values, "files": shards})


def shard_name(view: View, split: str, index: int, count: int) -> str:
    """`fixed/train-00000-of-00008.parquet`, relative to the dataset's folder."""
    return f"{view}/{split}-{index:05d}-of-{count:05d}.parquet"


def id_type(vocab_size: int) -> "np.dtype[Any]":
    """uint16 where the vocabulary allows, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def fixed_table(ids: np.ndarray, opens: np.ndarray, vocab_size: int, length: int, before: int) -> pa.Table:
    """Rows of the fixed view.

    Args:
        ids: [N] target ids of one run of text, in order.
        opens: [N] bool, whether the target opens a document.
        before: the id that precedes the first target.

    Returns a table with, for each row: `ids`, length + 1 ids of which the first is the input before the first target (a short
    last row is filled up with its own last id, which `num_targets` leaves out); `begins`, each p where target ids[p + 1]
    opens a document; `num_targets`.
    """
    count = -(-len(ids) // length)
    padded = np.empty(count * length + 1, id_type(vocab_size))
    padded[0] = before
    padded[1 : len(ids) + 1] = ids
    padded[len(ids) + 1 :] = ids[-1] if len(ids) else before
    rows = np.lib.stride_tricks.sliding_window_view(padded, length + 1)[::length]
    at = np.flatnonzero(opens)
    offsets = np.searchsorted(at, np.arange(count + 1) * length).astype(np.int32)
    num_targets = np.full(count, length, np.int32)
    if count:
        num_targets[-1] = len(ids) - (count - 1) * length
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), length + 1)
    begins = pa.ListArray.from_arrays(pa.array(offsets), pa.array((at % length).astype(np.int32)))
    schema = _schema("fixed", vocab_size, length)
    return pa.table({"ids": values.cast(schema.field("ids").type), "begins": begins, "num_targets": num_targets}, schema=schema)


def sentences_table(
    ids: np.ndarray, ends: np.ndarray, documents: list[str], positions: np.ndarray, words: np.ndarray, num_bytes: np.ndarray,
    leads: list[str], gaps: list[str], vocab_size: int,
) -> pa.Table:  # fmt: skip
    """Rows of the sentences view.

    Args:
        ids: [N] ids of all sentences end to end, each ending in `<eos>`.
        ends: [S] index in `ids` after each sentence's `<eos>`.
        documents, positions: the document's name and the sentence's number in it, from 0.
        words, num_bytes: white-space words and UTF-8 bytes of the sentence's own text.
        leads, gaps: white space before (only where a document opens with some) and after the sentence.
    """
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids.astype(id_type(vocab_size))))
    columns = {
        "ids": lists, "document": pa.array(documents, pa.string()), "position": positions.astype(np.int32), "words": words.astype(np.int32),
        "bytes": num_bytes.astype(np.int32), "lead": pa.array(leads, pa.string()), "gap": pa.array(gaps, pa.string()),
    }  # fmt: skip
    return pa.table(columns, schema=_schema("sentences", vocab_size, 0))


def _schema(view: View, vocab_size: int, length: int) -> pa.Schema:
    """Arrow schema with the features that `datasets` reads from a Parquet file's metadata."""
    kind = id_type(vocab_size).name
    id_value, number, text = ({"dtype": name, "_type": "Value"} for name in (kind, "int32", "string"))
    features: dict[str, Any]
    if view == "fixed":
        types: dict[str, pa.DataType] = {"ids": pa.list_(pa.from_numpy_dtype(kind), length + 1)}
        types |= {"begins": pa.list_(pa.int32()), "num_targets": pa.int32()}
        features = {
            "ids": {"feature": id_value, "length": length + 1, "_type": "List"},
            "begins": {"feature": number, "_type": "List"},
            "num_targets": number,
        }
    else:
        types = {"ids": pa.list_(pa.from_numpy_dtype(kind)), "document": pa.string(), "position": pa.int32(), "words": pa.int32()}
        types |= {"bytes": pa.int32(), "lead": pa.string(), "gap": pa.string()}
        features = {"ids": {"feature": id_value, "_type": "List"}, "document": text, "position": number, "words": number}
        features |= {"bytes": number, "lead": text, "gap": text}
    return pa.schema(list(types.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def write_shard(path: Path, view: View, tables: Iterable[pa.Table], schema_of: tuple[int, int]) -> tuple[int, str]:
    """Writes the tables of one shard to a Parquet file, atomically, in row groups that do not depend on how the tables were cut.

    `schema_of` is (vocabulary size, row length). Returns (rows, SHA-256 of the file).
    """
    size, rows, waiting = ROW_GROUP[view], 0, [_schema(view, *schema_of).empty_table()]
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["document"] if view == "sentences" else False}
    with files.atomic(path) as stream, pq.ParquetWriter(stream, waiting[0].schema, **options) as writer:
        for table in tables:
            waiting.append(table)
            held = sum(part.num_rows for part in waiting)
            if held >= size:
                whole = pa.concat_tables(waiting).combine_chunks()
                for start in range(0, held - held % size, size):
                    writer.write_table(whole.slice(start, size), row_group_size=size)
                waiting = [whole.slice(held - held % size)]
            rows += table.num_rows
        rest = pa.concat_tables(waiting).combine_chunks()
        if rest.num_rows:
            writer.write_table(rest, row_group_size=size)
    return rows, files.sha256(path)


def paths(folder: Path, manifest: Manifest, view: View, split: str) -> list[Path]:
    """The Parquet files of a view of a split, in the order of the text; `RequestError` if the split is not there."""
    return [Path(folder) / name for name in manifest.split(split).files[view]]


def damaged(folder: Path, manifest: Manifest) -> list[str]:
    """Checks every shard and the tokenizer against the manifest; returns a line for each that differs, naming both digests."""
    expected = {name: shard.sha256 for split in manifest.splits.values() for view in VIEWS for name, shard in split.files[view].items()}
    expected["tokenizer.json"] = manifest.digests["tokenizer"]
    lines = []
    for name, digest in expected.items():
        path = Path(folder) / name
        found = files.sha256(path) if path.is_file() else "no such file"
        if found != digest:
            lines.append(f"{path}: expected sha256 {digest}, got {found}")
    return lines


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

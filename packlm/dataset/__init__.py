"""The dataset on disk: shards, manifest and card; the only code that writes and reads them.

    DIR/README.md                                 card; its YAML lets `load_dataset(DIR, "fixed" | "sentences")` open both views
    DIR/manifest.json                             settings, sizes, digests (its own too)
    DIR/sources.parquet                           each source of the corpus and its digest
    DIR/tokenizer.json, tokenizer_config.json
    DIR/fixed/train-00000-of-00008.parquet        rows of L targets: ids (L + 1), begins, num_targets
    DIR/sentences/train-00000-of-00008.parquet    ids (ending in <eos>), document, position, words, bytes, joined, lead, gap
    DIR/report/                                   lengths and frequencies, as plots and as numbers

The bytes depend on the content alone: fixed row groups, no times, no paths.
"""

from packlm.dataset.manifest import (
    EOS,
    SPLITS,
    UNK,
    VERSION,
    VIEWS,
    Manifest,
    Shard,
    Split,
    View,
    card,
    content_digest,
    damaged,
    described,
    document_names,
    open_shards,
    read_files,
    read_manifest,
    shard_digests,
    write_manifest,
)  # fmt: skip
from packlm.dataset.shards import ROW_GROUP, ColumnTypes, ShardWriter, fixed_table, id_type, ids_digest, sentences_table, shard_name
from packlm.dataset.source_list import SOURCES, corpus_digest, read_sources, write_sources

__all__ = [
    "EOS",
    "ROW_GROUP",
    "SOURCES",
    "SPLITS",
    "UNK",
    "VERSION",
    "VIEWS",
    "ColumnTypes",
    "Manifest",
    "Shard",
    "ShardWriter",
    "Split",
    "View",
    "card",
    "content_digest",
    "corpus_digest",
    "damaged",
    "described",
    "document_names",
    "fixed_table",
    "id_type",
    "ids_digest",
    "open_shards",
    "read_files",
    "read_manifest",
    "read_sources",
    "sentences_table",
    "shard_digests",
    "shard_name",
    "write_manifest",
    "write_sources",
]  # fmt: skip

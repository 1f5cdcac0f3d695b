"""Parquet: a document is the string of a row in the column `corpus.text_field`; parts are runs of row groups."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import streams
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import skip_record
from packlm.corpus.sources import Part, Source

_BATCH_ROWS = 1 << 10


class Parquet(Format):
    """Parquet files, whose pages are compressed by themselves."""

    suffixes = (".parquet",)
    compressible = False

    def scan(self, source: Source, rules: Corpus, part_bytes: int, advance: Callable[[int], object]) -> tuple[list[Part], str]:
        parts = list(_row_groups(source, rules, part_bytes))
        with source.open() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        advance(source.state()[0])
        return parts, digest

    def whole(self, source: Source, rules: Corpus) -> Part:
        return next(_row_groups(source, rules, 1 << 62))

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        source, number = part.source, part.number
        groups = list(range(part.start, part.stop))
        with _open(source, rules.text_field) as file:
            batches = file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[rules.text_field]) if groups else iter(())
            pending: list[pa.Array] = []
            first, size = number, 0
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, pa.ArrowException) as error:
                    raise PacklmError(f"{source.where}: damaged after row {number - 1}: {error}; replace the file") from None
                if batch is not None:
                    column = batch.column(0)
                    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                    pending.append(column.cast(pa.large_binary()))
                    number += len(column)
                    size += pending[-1].nbytes
                if pending and (batch is None or size >= streams.BLOCK):
                    yield _documents(pa.concat_arrays(pending), first, source, rules, counts)
                    pending, first, size = [], number, 0
                if batch is None:
                    break


def _documents(column: pa.Array, first: int, source: Source, rules: Corpus, counts: Counter[str]) -> RawDocuments:
    """The strings of consecutive rows, of which the first has number `first`; nulls are records that cannot be read."""
    numbers = np.arange(first, first + len(column))
    if column.null_count:
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        for number in numbers[is_null].tolist():
            skip_record(source, f"row {number}", f"null in column {rules.text_field!r}", rules, counts)
        numbers, column = numbers[~is_null], pc.drop_null(column)
    _, offset_buffer, text = column.buffers()
    bounds = np.frombuffer(offset_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    if len(too_long := np.flatnonzero(np.diff(bounds) > rules.max_document_bytes)):
        raise streams.too_long(source, f"row {numbers[too_long[0]]}", rules)
    data = np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]] if text and len(column) else np.empty(0, np.uint8)
    return RawDocuments(source, data, bounds[1:] - bounds[0], numbers, unit="row")


def _row_groups(source: Source, rules: Corpus, part_bytes: int) -> Iterator[Part]:
    """Runs of row groups with at least `part_bytes` of text each but the last; at least one part."""
    with _open(source, rules.text_field) as file:
        metadata = file.metadata
        column = metadata.schema.names.index(rules.text_field)
        start, first, size, number = 0, 1, 0, 1
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).column(column).total_uncompressed_size
            number += metadata.row_group(group).num_rows
            if size >= part_bytes:
                yield Part(source, start, group + 1, first, size)
                start, first, size = group + 1, number, 0
        if start < metadata.num_row_groups or not start:
            yield Part(source, start, metadata.num_row_groups, first, size)


def _open(source: Source, field: str) -> pq.ParquetFile:
    """Opens a source; `PacklmError` if it is damaged, or has no column `field` of strings."""
    with source.open():
        pass  # reports missing permissions in our own words
    try:
        file = pq.ParquetFile(source.path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise PacklmError(f"{source.where}: damaged, or not a Parquet file: {error}") from None
    schema = file.schema_arrow
    if field not in schema.names:
        file.close()
        columns = ", ".join(map(repr, schema.names))
        raise PacklmError(f"{source.where}: no column {field!r}; there are {columns}; name one with --corpus.text_field")
    kind = schema.field(field).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        file.close()
        raise PacklmError(f"{source.where}: column {field!r} holds {kind}, not strings; name another with --corpus.text_field")
    return file


FORMATS = {"parquet": Parquet()}

"""Parquet: a document is the string (or UTF-8 bytes) of a row in the column `corpus.text_field`; parts are runs of row groups."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import streams
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import NAME_FIELD, skip_record
from packlm.corpus.sources import Part, Source

_BATCH_ROWS = 1 << 10
_TEXT_TYPES = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary,
    pa.types.is_binary_view,
)  # fmt: skip


class Parquet(Format):
    """Parquet files, whose pages are compressed by themselves."""

    compressible = False
    encoded = False

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
        with _open(source, rules.text_field) as (file, path):
            batches = file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[".".join(path)]) if groups else iter(())
            pending: list[pa.Array] = []
            first, size = number, 0
            while True:
                try:
                    batch = next(batches, None)
                except pa.ArrowNotImplementedError as error:
                    problem = f"column {rules.text_field!r} is stored in a way that pyarrow cannot read ({error})"
                    raise PacklmError(f"{source.where}: {problem}; write it as plain strings") from None
                except (OSError, pa.ArrowException) as error:
                    raise PacklmError(f"{source.where}: damaged after row {number - 1}: {error}; replace the file") from None
                if batch is not None:
                    column = batch.column(path[0])
                    for name in path[1:]:
                        column = pc.struct_field(column, name)
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
    with _open(source, rules.text_field) as (file, path):
        metadata = file.metadata
        paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
        column = paths.index(".".join(path))
        start, first, size, number = 0, 1, 0, 1
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).column(column).total_uncompressed_size
            number += metadata.row_group(group).num_rows
            if size >= part_bytes:
                yield Part(source, start, group + 1, first, size)
                start, first, size = group + 1, number, 0
        if start < metadata.num_row_groups or not start:
            yield Part(source, start, metadata.num_row_groups, first, size)


@contextmanager
def _open(source: Source, field: str) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """Opens a source: the file, and the names of the columns that lead to `field`.

    Raises:
        PacklmError: it is damaged, or has no column `field` of strings or bytes.
    """
    with source.open():
        pass  # reports missing permissions in our own words
    try:
        file = pq.ParquetFile(source.path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise PacklmError(f"{source.where}: damaged, or not a Parquet file: {error}") from None
    with file:
        columns = _leaves(file.schema_arrow)
        path = next((path for path in columns if ".".join(path) == field), None)
        if path is None:
            names = ", ".join(repr(".".join(path)) for path in columns)
            raise PacklmError(f"{source.where}: no column {field!r}; there are {names}; {NAME_FIELD}")
        kind = columns[path]
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in _TEXT_TYPES):
            raise PacklmError(f"{source.where}: column {field!r} holds {kind}, not strings; name another with --corpus.text_field")
        yield file, list(path)


def _leaves(fields: Iterable[pa.Field], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], pa.DataType]:
    """The columns, and the fields of those that are structures, by the names that lead there."""
    columns: dict[tuple[str, ...], pa.DataType] = {}
    for field in fields:
        path = (*prefix, field.name)
        columns |= _leaves(field.type, path) if pa.types.is_struct(field.type) else {path: field.type}
    return columns


FORMATS = {"parquet": Parquet()}

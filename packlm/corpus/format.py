"""The interface of a corpus format."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from packlm.config import Corpus
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.sources import Part, Source

_HASH_BLOCK = 1 << 18  # bytes hashed and searched for line feeds while they are in the CPU cache


class Format(ABC):
    """How the sources of one format are found, cut into parts and read; without state.

    Every format implements `read`. One that can be read from the middle of a file overrides `cuts`; one whose parts are not ranges of
    bytes overrides `scan` and `whole`.
    """

    suffixes: tuple[str, ...] = ()
    """Lower-case suffixes of the files read in this format under `corpus.format = "auto"`, besides those that `file_kinds` knows."""
    compressible = True
    """Whether `.gz` and `.zst` files of this format can be read."""
    encoded = True
    """Whether its files are text, in `corpus.encoding`."""

    def sources(self, locations: Sequence[str]) -> list[Source] | None:
        """The sources that the format itself provides for `locations`; None if locations name files.

        Raises:
            RequestError: locations that the format does not know.
        """
        return None

    def is_numbered(self, rules: Corpus) -> bool:
        """Whether names of documents end in their numbers (`RawDocuments.numbered`)."""
        return True

    def cuts(self, source: Source, rules: Corpus, part_bytes: int) -> list[int]:
        """Bytes at which the parts after the first begin: where documents begin, at least `part_bytes` apart."""
        return []

    def scan(self, source: Source, rules: Corpus, part_bytes: int, advance: Callable[[int], object]) -> tuple[list[Part], str]:
        """Parts and SHA-256 of a source, as `formats.scan`; in one pass, since line numbers of parts need every line feed counted."""
        size, content = source.state()[0], hashlib.sha256()
        parts: list[Part] = []
        number = 1
        bounds = [0, *self.cuts(source, rules, part_bytes), size]
        with source.open() as stream:
            for start, stop in pairwise(bounds):
                parts.append(Part(source, start, stop, number, stop - start))
                remaining = stop - start
                while remaining > 0 and (block := stream.read(min(remaining, _HASH_BLOCK))):
                    remaining -= len(block)
                    content.update(block)
                    if stop < size:  # numpy counts many short lines three times as fast as `bytes.count`
                        number += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))
                advance(stop - start)
        return parts, content.hexdigest()

    def whole(self, source: Source, rules: Corpus) -> Part:
        """The source as one part."""
        size = source.state()[0]
        return Part(source, 0, size, 1, size)

    @abstractmethod
    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        """The documents of a part, in order, in blocks of about `streams.BLOCK` bytes.

        Args:
            counts: reason -> number of things skipped or dropped; updated.

        Raises:
            PacklmError: naming file and line or row: a file that cannot be read; a document longer than `max_document_bytes`; a record
                that cannot be read, under on_bad_text = "error".
        """

"""Scans the corpus: finds its sources, digests their bytes, and cuts them into parts for the extraction tasks.

Every byte is read once, at the speed of the disk. Text is not looked at: that is the work of extraction.
"""

from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from packlm.base.errors import RequestError
from packlm.base.log import progress
from packlm.config import Config
from packlm.corpus import discovery, formats
from packlm.corpus.sources import Part, Source, State
from packlm.dataset import SPLITS

PART_BYTES = 1 << 25
"""Approximate size of a part, and of what one extraction task reads."""
_THREADS = 4


@dataclass(frozen=True)
class Scan:
    """The sources of a corpus, in order; each belongs to the setting that lists it (`corpus.train`, ...), its *listed split*."""

    digests: dict[str, str]
    """`SPLIT: NAME` of each source -> SHA-256 of its bytes."""
    parts: list[tuple[str, Part]]
    """(listed split, part) of all parts of all sources."""
    states: dict[Source, State]
    """The state of each source before it was read."""

    def changed(self) -> list[Source]:
        """The sources that were modified since the scan."""
        return [source for source, state in self.states.items() if source.state() != state]


def scan_corpus(config: Config, downloads: Path) -> Scan:
    """Reads all sources. Those from the Hugging Face hub or standard input are first copied into `downloads`.

    Raises:
        RequestError: no sources, a source that is not a regular file, or two of the same name.
        PacklmError: a source that cannot be read.
    """
    listed = _listed_sources(config, downloads)
    states = {source: source.state() for _, source in listed}
    digests: dict[str, str] = {}
    parts: list[tuple[str, Part]] = []
    total = sum(size for size, _ in states.values())
    with progress(total=total, desc="scanning", unit="B", unit_scale=True) as bar, ThreadPool(_THREADS) as threads:

        def read(source: Source) -> tuple[list[Part], str]:
            return formats.scan(source, config.corpus, PART_BYTES, bar.update)

        # Hashing releases the interpreter's lock, so several files are read at a time.
        scanned = threads.imap(read, [source for _, source in listed])
        for (split, source), (source_parts, digest) in zip(listed, scanned, strict=True):
            digests[f"{split}: {source.name}"] = digest
            parts += [(split, part) for part in source_parts]
    return Scan(digests, parts, states)


def _listed_sources(config: Config, downloads: Path) -> list[tuple[str, Source]]:
    corpus = config.corpus
    if not corpus.train:
        raise RequestError("corpus.train is not set: give a file, folder, glob, hub:NAME, or - for standard input (--corpus.train PATH)")
    sources = {split: discovery.find(getattr(corpus, split), corpus, split, downloads) for split in SPLITS if getattr(corpus, split)}
    discovery.check_unique(sources, corpus)
    return [(split, source) for split, listed in sources.items() for source in listed]

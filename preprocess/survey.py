"""The survey of a corpus: every source, the digest of its bytes, and the parts that tasks will read it in.

It reads every byte once, at the speed of the disk, and looks at no text: that is the collect tasks' work.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, Corpus
from pipeline.dataset import SPLITS
from pipeline.errors import RequestError
from pipeline.log import progress
from preprocess import collect, sources
from preprocess.sources import Part, Source, State

TASK_BYTES = 1 << 25
"""Text a collect task reads, about."""
_THREADS = 4


@dataclass(frozen=True)
class Survey:
    """What there is."""

    corpus: dict[str, str]
    """`SPLIT: NAME` (the split that the source was given for) -> SHA-256 of its bytes, in the order of the text."""
    states: dict[Source, State]
    """The state of each source, before it was read."""
    parts: list[tuple[str, Part]]
    """(split it was given for, part), in the order of the text."""

    def changed(self) -> list[Source]:
        """The sources that somebody has written to since the survey."""
        return [source for source, state in self.states.items() if source.state() != state]


def find(config: Config, spool: Path) -> list[tuple[str, Source]]:
    """All sources, each with the split it was given for; what comes from the hub or through standard input is kept in `spool` first.

    Raises:
        RequestError: no sources, a source that is no regular file, or two of one name.
    """
    rules = config.corpus
    if not rules.train:
        raise RequestError("corpus.train is not set: name a file, a folder or a glob of files, hub:NAME, or - (--corpus.train PATH)")
    found = {split: sources.find(getattr(rules, split), rules, split, spool) for split in SPLITS if getattr(rules, split)}
    sources.refuse_repeats(found)
    return [(split, source) for split, listed in found.items() for source in listed]


def num_tasks(found: list[tuple[str, Source]], rules: Corpus) -> int:
    """About how many collect tasks there will be."""
    sizes = [(source.state()[0], source.kind == "parquet" or sources.has_cuts(source, rules)) for _, source in found]
    return -(-sum(size if has_cuts else min(size, TASK_BYTES) for size, has_cuts in sizes) // TASK_BYTES)


def survey(found: list[tuple[str, Source]], rules: Corpus) -> Survey:
    """Reads all sources.

    Raises:
        PacklmError: a source that cannot be read.
    """
    states = {source: source.state() for _, source in found}
    corpus, parts = {}, []
    # Hashing lets go of the interpreter's lock, so threads read several files at a time.
    size = sum(size for size, _ in states.values())
    with progress(total=size, desc="reading", unit="B", unit_scale=True) as bar, ThreadPoolExecutor(_THREADS) as pool:
        surveyed = pool.map(lambda item: sources.survey(item[1], rules, TASK_BYTES), found)
        for (split, source), read in zip(found, surveyed, strict=True):
            corpus[f"{split}: {source.name}"] = read.sha256
            parts += [(split, part) for part in read.parts]
            bar.update(read.size_bytes)
    return Survey(corpus, states, parts)


def jobs(surveyed: Survey, config: Config, spelled_eos: str, folder: Path) -> list[collect.Job]:
    """The collect tasks: consecutive parts of one split, about `TASK_BYTES` together, at least one each."""
    groups = enumerate(_groups(surveyed.parts))
    return [collect.Job(index, given, tuple(parts), config.corpus, spelled_eos, folder) for index, (given, parts) in groups]


def _groups(listed: list[tuple[str, Part]]) -> Iterator[tuple[str, list[Part]]]:
    group: list[Part] = []
    before, size = "", 0
    for given, part in listed:
        if group and (given != before or size + part.size > TASK_BYTES):
            yield before, group
            group, size = [], 0
        before = given
        group.append(part)
        size += part.size
    if group:
        yield before, group

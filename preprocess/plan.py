"""The survey of a corpus, and the plan of the shards that follows from it.

The survey reads every byte once: it learns the digest of each file, how many documents each split has, and what cleaning
will skip or replace, so that bad text stops the work before it has begun. Of a file of lines it keeps the place of every few
thousandth document and nothing else.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, islice

from pipeline.config import Config, Corpus
from pipeline.dataset import SPLITS
from pipeline.errors import RequestError
from pipeline.log import progress
from preprocess import documents
from preprocess.documents import Document, Source

_MARK_EVERY = 4096


@dataclass
class _Part:
    """What one source gives to one split."""

    source: Source
    documents: int = 0
    characters: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)
    """(byte offset, line) of documents 0, 4096, 8192, ... of the split in this source."""


@dataclass(frozen=True)
class Piece:
    """Consecutive documents of one split in one source: from a place on, some to pass over, some to take."""

    source: Source
    offset: int
    line: int
    skip: int
    take: int


@dataclass(frozen=True)
class Task:
    """One shard: its split, its number among `count`, and its documents."""

    split: str
    index: int
    count: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class Survey:
    """What there is: the files by content, and the documents of each split."""

    corpus: dict[str, str]
    """`SPLIT: NAME` (the split that the file was given for) -> SHA-256 of the file, in the order of the text."""
    states: dict[Source, tuple[int, int]]
    """Size and time of change of each source, before it was read."""
    parts: dict[str, list[_Part]]
    counts: dict[str, int]
    """Whatever is skipped, replaced or dropped, by reason."""

    def changed(self) -> list[Source]:
        """The sources that somebody has written to since the survey."""
        return [source for source, state in self.states.items() if source.state() != state]


def survey(config: Config, spelled_eos: bool) -> Survey:
    """Reads the whole corpus.

    Raises:
        RequestError: no sources, a source that is no text file, two of one name, or nothing left to train on.
        PacklmError: bad text, under on_bad_text = "error".
    """
    rules = config.corpus
    if not rules.train:
        raise RequestError("corpus.train is not set: name a file, a folder or a glob of text files (--corpus.train PATH)")
    sources = {split: documents.find(getattr(rules, split), rules) for split in SPLITS if getattr(rules, split)}
    documents.refuse_repeats(sources)
    states = {source: source.state() for given in sources.values() for source in given}
    corpus: dict[str, str] = {}
    parts: dict[str, list[_Part]] = {split: [] for split in SPLITS}
    counts: Counter[str] = Counter()
    with progress(total=sum(size for size, _ in states.values()), desc="reading", unit="B", unit_scale=True) as bar:
        for split, given in sources.items():
            for source in given:
                corpus[f"{split}: {source.name}"], found = _survey_source(source, split, rules, spelled_eos, counts)
                for name, part in found.items():
                    parts[name].append(part)
                bar.update(states[source][0])
    if not parts["train"]:
        raise RequestError(f"corpus.train: no text to train on in {len(sources['train']):,} files ({dict(+counts) or 'nothing skipped'})")
    return Survey(corpus, states, {split: found for split, found in parts.items() if found}, dict(sorted((+counts).items())))


def _survey_source(source: Source, given: str, rules: Corpus, spelled_eos: bool, counts: Counter[str]) -> tuple[str, dict[str, _Part]]:
    """(SHA-256 of the source's bytes, what it gives to each split)."""
    content = hashlib.sha256()
    found: dict[str, _Part] = {}
    for document in documents.read(source, rules, spelled_eos, counts, content=content):
        part = found.setdefault(split_of(document.name, given, rules), _Part(source))
        if part.documents % _MARK_EVERY == 0:
            part.marks.append((document.offset, document.line))
        part.documents += 1
        part.characters += len(document.text)
    return content.hexdigest(), found


def split_of(name: str, given: str, rules: Corpus) -> str:
    """The split of a document of a source given for split `given`.

    By a hash of the document's name: other documents, and the other fraction, change nothing about it.
    """
    if given != "train" or not (rules.validation_fraction or rules.test_fraction):
        return given
    drawn = int.from_bytes(hashlib.sha256(f"{rules.split_seed}\n{name}".encode()).digest()[:8]) / 2**64
    if drawn < rules.validation_fraction:
        return "validation"
    return "test" if drawn >= 1 - rules.test_fraction else "train"


def tasks(surveyed: Survey, rules: Corpus, shards: int) -> list[Task]:
    """The shards of all splits: runs of whole documents, in order, none empty, about equal (in text, or in number of lines)."""
    planned = []
    for split, parts in surveyed.parts.items():
        total = sum(part.documents for part in parts)
        count = min(shards, total)
        if rules.document == "file":
            ends = list(accumulate(part.characters for part in parts))
            cuts = [0]
            for index in range(1, count):
                near = bisect_left(ends, ends[-1] * index / count) + 1
                cuts.append(min(max(near, cuts[-1] + 1), total - (count - index)))
            cuts.append(total)
        else:
            cuts = [total * index // count for index in range(count + 1)]
        for index in range(count):
            planned.append(Task(split, index, count, tuple(_pieces(parts, cuts[index], cuts[index + 1]))))
    return planned


def _pieces(parts: list[_Part], start: int, end: int) -> Iterator[Piece]:
    """Documents [start, end) of a split."""
    before = 0
    for part in parts:
        low, high = max(start - before, 0), min(end - before, part.documents)
        if low < high:
            mark = low // _MARK_EVERY
            yield Piece(part.source, *part.marks[mark], skip=low - mark * _MARK_EVERY, take=high - low)
        before += part.documents


def read(task: Task, rules: Corpus, spelled_eos: bool) -> Iterator[Document]:
    """The documents of a shard, in order."""
    for piece in task.pieces:
        found = documents.read(piece.source, rules, spelled_eos, Counter(), piece.offset, piece.line)
        # A source given for a split of its own lies in it whole; one that fractions divide was given for train.
        given = task.split if getattr(rules, task.split) and task.split != "train" else "train"
        mine = (document for document in found if split_of(document.name, given, rules) == task.split)
        yield from islice(mine, piece.skip, piece.skip + piece.take)

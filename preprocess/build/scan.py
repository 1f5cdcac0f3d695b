"""The survey of a corpus: every source, the digest of its bytes, and the parts that tasks will read it in.

It reads every byte once, at the speed of the disk, and looks at no text: that is the work of the collect tasks, which may begin
with the first parts while threads here read on.
"""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from packlm.base.errors import RequestError
from packlm.base.log import progress
from packlm.config import Config, Corpus
from packlm.corpus import sources
from packlm.corpus.sources import Part, Source, State
from packlm.dataset import SPLITS

from . import extract

TASK_BYTES = 1 << 25
"""Text a collect task reads, about."""
_THREADS = 4


class Scan:
    """What there is: read by threads from the moment this is made."""

    def __init__(self, found: list[tuple[str, Source]], rules: Corpus):
        """`found`: all sources, each with the split it was given for, in the order of the text."""
        self.corpus: dict[str, str] = {}
        """`SPLIT: NAME` (the split that the source was given for) -> SHA-256 of its bytes, in the order of the text; whole after `wait`,
        or once the parts have come to their end."""
        self.states: dict[Source, State] = {source: source.state() for _, source in found}
        """The state of each source, before it was read."""
        self._found, self._rules = found, rules
        self._read: list[tuple[str, Part]] = []
        self._arriving = [SimpleQueue[Part | str | BaseException]() for _ in found]
        self._next = iter(range(len(found)))
        # Hashing lets go of the interpreter's lock, so several files are read at a time.
        for _ in range(min(_THREADS, len(found))):
            Thread(target=self._survey, daemon=True).start()

    @property
    def size(self) -> int:
        """Bytes of all sources."""
        return sum(size for size, _ in self.states.values())

    @property
    def num_tasks(self) -> int:
        """About how many collect tasks there will be."""
        found = [(size, source.kind == "parquet" or sources.has_cuts(source, self._rules)) for source, (size, _) in self.states.items()]
        return -(-sum(size if has_cuts else min(size, TASK_BYTES) for size, has_cuts in found) // TASK_BYTES)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """(split it was given for, part) in the order of the text; waits for what is not known yet. May be asked for again once at its end.

        Raises:
            PacklmError: a source that cannot be read.
        """
        if len(self.corpus) == len(self._found):
            yield from self._read
            return
        for (split, source), arriving in zip(self._found, self._arriving, strict=True):
            while isinstance(item := arriving.get(), Part):
                self._read.append((split, item))
                yield split, item
            if isinstance(item, BaseException):
                raise item
            self.corpus[f"{split}: {source.name}"] = item

    def wait(self) -> None:
        """Until all is read; raises what `parts` raises."""
        size = 0
        with progress(total=self.size, desc="reading", unit="B", unit_scale=True) as bar:
            for _, part in self.parts():
                bar.update(size)  # of the part before: this one is only now being read
                size = part.size
            bar.update(size)

    def changed(self) -> list[Source]:
        """The sources that somebody has written to since the survey."""
        return [source for source, state in self.states.items() if source.state() != state]

    def _survey(self) -> None:
        for number in self._next:
            try:
                for item in sources.survey(self._found[number][1], self._rules, TASK_BYTES):
                    self._arriving[number].put(item)
            except BaseException as error:
                self._arriving[number].put(error)


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


def jobs(surveyed: Scan, config: Config, spelled_eos: str, folder: Path) -> Iterator[extract.ExtractTask]:
    """The collect tasks, each once its parts are known: consecutive ones of one split, about `TASK_BYTES` together, at least one."""
    for index, (given, parts) in enumerate(_groups(surveyed.parts())):
        yield extract.ExtractTask(index, given, tuple(parts), config.corpus, spelled_eos, folder)


def _groups(listed: Iterator[tuple[str, Part]]) -> Iterator[tuple[str, list[Part]]]:
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

"""All files that are not in their encoding, at once, each with its likely one; and the encoding of each where that is `auto`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from packlm.base import escape
from packlm.base.escape import Multiline
from packlm.base.log import progress
from packlm.config import Corpus
from packlm.corpus import encodings, file_kinds, formats, streams
from packlm.corpus.sources import Part, Source
from packlm.corpus.transcoding import ENCODING_REMEDY, NotEncoded, label, to_utf8

MAX_LISTED = 10
"""Most files that a message names; the others are counted."""


def listed(heading: str, problems: Sequence[str], remedy: str = "") -> str | Multiline:
    """One problem as it is; several below a heading, with the remedy of all at the end."""
    if len(problems) == 1:
        return f"{problems[0]}; {remedy}" if remedy else problems[0]
    more = [f"  and {len(problems) - MAX_LISTED:,} more"] if len(problems) > MAX_LISTED else []
    return escape.lines(f"{heading}:", *(f"  {problem}" for problem in problems[:MAX_LISTED]), *more, *filter(None, [remedy]))


def with_encodings(sources: Sequence[Source]) -> list[Source]:
    """The sources, each with the likely encoding of its text; those that are no text as they are.

    Raises:
        PacklmError: a file that cannot be read.
    """
    return [replace(source, encoding=_likely(source)) if _is_encoded(source) else source for source in _with_progress(sources)]


def encoding_counts(sources: Iterable[Source], rules: Corpus) -> Counter[str]:
    """How many files are read in each encoding, if `corpus.encoding` is `auto`."""
    if rules.encoding != "auto":
        return Counter()
    return Counter(f"files read as {label(source.encoding)}" for source in sources if _is_encoded(source))


def chosen_encodings(sources: Iterable[Source], rules: Corpus) -> str:
    """The files for which `corpus.encoding = "auto"` chose another encoding than UTF-8; empty if there are none."""
    others = [f"{source.where}: read as {source.encoding}" for source in sources if rules.encoding == "auto" and source.encoding != "utf-8"]
    return listed(f"{len(others):,} files are not UTF-8", others) if others else ""


def all_of(error: NotEncoded, sources: Iterable[Source]) -> NotEncoded:
    """The error about one file, or one that lists all files among `sources` that are not in their encoding, if these are several."""
    problems = [problem for source in _with_progress(list(sources)) if _is_encoded(source) and (problem := _problem(source))]
    return (
        error if len(problems) < 2 else NotEncoded(listed(f"{len(problems):,} files are not in their encoding", problems, ENCODING_REMEDY))
    )


def _problem(source: Source) -> str:
    """What is wrong with the encoding of a source, and what it may be; empty if nothing is."""
    try:
        for _ in to_utf8(_blocks(source), source.encoding, True, source.where, 0, 1):
            pass
    except NotEncoded as error:
        hint = file_kinds.looks_like(streams.head(source, file_kinds.HEAD_BYTES)) or f", likely {label(_likely(source))}"
        return str(error).removesuffix(f"; {ENCODING_REMEDY}") + hint
    return ""


def _likely(source: Source) -> str:
    """The likely encoding; UTF-8 for a binary file, which cleaning then reports or skips."""
    if file_kinds.kind("", streams.head(source, file_kinds.HEAD_BYTES)).what == "binary":
        return "utf-8"
    return encodings.of_blocks(_blocks(source))


def _is_encoded(source: Source) -> bool:
    return source.path is not None and formats.FORMATS[source.format].encoded


def _blocks(source: Source) -> Iterator[bytes]:
    size = source.state()[0]
    return streams.blocks(Part(source, 0, size, 1, size))


def _with_progress(sources: Sequence[Source]) -> Iterator[Source]:
    with progress(total=len(sources), desc="looking at encodings", unit=" files") as bar:
        for source in sources:
            yield source
            bar.update()

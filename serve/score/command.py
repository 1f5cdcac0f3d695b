"""The command `score`: which context, which ranks, which files."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from packlm.base import files
from packlm.base import log as logs
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import sentences as scoring
from packlm.scoring.sentences import SentenceScore

from . import files as score_files
from . import heat_map
from .files import ScoreWriter
from .sentence_files import Reader, Row

log = logging.getLogger("packlm")

T = TypeVar("T")
NAMED = 10
"""Lines that could not be read and are named one by one; the rest is counted."""


def run(
    model: str | Path, source: IO[bytes], name: str, out: str, html: Path | None, config: Config, ranks: Ranks, precision: str
) -> None:  # fmt: skip
    """All ranks: scores the sentences of `source` to the file `out` (`-`: standard output), and draws them to `html`.

    Raises:
        RequestError: no such model, an input that is no text, or several processes with one standard input or output.
    """
    check_streams(ranks, name, out)
    if ranks.world > 1 and html:
        raise RequestError("--html draws what one process scores: run it without torchrun")
    engine = Engine.load(model, ranks.device, config.tracking, precision)
    documents, why = context(engine, config.score.context)
    log.info("context: %s", why)
    reader = Reader(source, name, config.score.format, config.score.text_field, documents)
    rows = counting(score_files.share(reader, ranks), "sentences")
    writer = ScoreWriter("jsonl" if out.endswith(".jsonl") else "tsv", config.score.rows, reader.others)
    found = score_files.scored(
        rows, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens, documents)
    )
    drawn = _Drawn()
    if html:
        found = drawn.keep(found)
    deliver(found, writer.lines, writer.header, ranks, out, "sentences")
    if html:
        with files.atomic(html, "w") as stream:
            title = f"Surprisal of {Path(name).name} under {engine.about.name}"
            heat_map.write(drawn.scores, stream, title, f"Context: {why}.", drawn.left_out)


def context(engine: Engine, asked: str) -> tuple[bool, str]:
    """(Whether sentences are read after those before them in their document, that in words)."""
    documents = not engine.sentences_alone if asked == "auto" else asked == "document"
    said = "each sentence after those before it in its document" if documents else "each sentence by itself"
    return documents, said + (", as the model was trained" if asked == "auto" else "")


def counting(rows: Iterable[Row], what: str) -> Iterator[Row]:
    """The rows; the first that are none of what they should be are named, and all of them counted."""
    count = wrong = 0
    for row in rows:
        count += 1
        if row.error:
            wrong += 1
            if wrong <= NAMED:
                log.warning("line %d: %s", row.number, row.error)
        yield row
    if wrong:
        log.warning("%d of %d lines are no %s", wrong, count, what)
    elif not count:
        log.warning("the input is empty: nothing was scored")


class _Drawn:
    """The first scores, for a page."""

    def __init__(self) -> None:
        self.scores: list[SentenceScore] = []
        self.left_out = 0

    def keep(self, found: Iterable[tuple[Row, SentenceScore | None]]) -> Iterator[tuple[Row, SentenceScore | None]]:
        for row, score in found:
            if score is not None and len(self.scores) < heat_map.SENTENCES:
                self.scores.append(score)
            else:
                self.left_out += score is not None
            yield row, score


def check_streams(ranks: Ranks, name: str, out: str | None) -> None:
    """`RequestError` where several processes would read standard input or write standard output."""
    if ranks.world > 1 and "-" in (name, out):
        raise RequestError("several processes cannot share standard input or output: give --input FILE and --out FILE")


def deliver(
    found: Iterable[tuple[Row, T]], lines: Callable[[Row, T], Iterator[str]], header: str, ranks: Ranks, out: str | None, unit: str
) -> None:  # fmt: skip
    """All ranks: writes what was found to the file `out`, or to standard output (`-`), or nowhere (None), with a progress bar."""
    with logs.progress(found, unit=f" {unit}") as ticking:
        if out == "-":
            sys.stdout.write(header)
            for row, value in ticking:
                sys.stdout.writelines(lines(row, value))
        elif out:
            score_files.write(ticking, lines, header, ranks, Path(out))
        else:
            for _ in ticking:
                pass

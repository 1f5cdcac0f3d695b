"""The command `score`, and what it shares with `pairs`: warnings about lines, and output to a file or standard output."""

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
MAX_WARNINGS = 10
"""Most lines with errors that are logged one by one; the others are counted."""


def run(
    model: str | Path, source: IO[bytes], name: str, out: str, html: Path | None, config: Config, ranks: Ranks, precision: str
) -> None:  # fmt: skip
    """All ranks: scores the sentences of `source`, called `name`, to the file `out` (`-`: standard output), and as a heat map to `html`.

    Raises:
        RequestError: there is no such model, the input is not text, or several processes share standard input or output.
    """
    check_streams(ranks, name, out)
    if ranks.world > 1 and html:
        raise RequestError("--html needs all scores in one process: run it without torchrun")
    engine = Engine.load(model, ranks.device, config.tracking, precision)
    documents, description = context(engine, config.score.context)
    log.info("context: %s", description)
    reader = Reader(source, name, config.score.format, config.score.text_field, documents)
    rows = log_errors(score_files.rank_share(reader, ranks), "sentences")
    writer = ScoreWriter("jsonl" if out.endswith(".jsonl") else "tsv", config.score.rows, reader.extra_columns)
    scores = score_files.score_rows(
        rows, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens, documents)
    )
    head = _Head()
    if html:
        scores = head.keep(scores)
    write(scores, writer.lines, writer.header, ranks, out, "sentences")
    if html:
        with files.atomic(html, "w") as stream:
            title = f"Surprisal of {Path(name).name} under {engine.info.name}"
            heat_map.write(head.scores, stream, title, f"Context: {description}.", head.omitted)


def context(engine: Engine, setting: str) -> tuple[bool, str]:
    """(whether a sentence follows those before it in its document, a description of that) for a value of `score.context`."""
    documents = not engine.isolated_sentences if setting == "auto" else setting == "document"
    description = "each sentence after those before it in its document" if documents else "each sentence by itself"
    return documents, description + (", as the model was trained" if setting == "auto" else "")


def log_errors(rows: Iterable[Row], unit: str) -> Iterator[Row]:
    """The rows; logs the first ones with errors and the number of all of them. `unit`: what rows should be."""
    count = errors = 0
    for row in rows:
        count += 1
        if row.error:
            errors += 1
            if errors <= MAX_WARNINGS:
                log.warning("line %d: %s", row.number, row.error)
        yield row
    if errors:
        log.warning("%d of %d lines are not %s", errors, count, unit)
    elif not count:
        log.warning("the input is empty: nothing was scored")


class _Head:
    """The first scores, for a heat map."""

    def __init__(self) -> None:
        self.scores: list[SentenceScore] = []
        self.omitted = 0

    def keep(self, results: Iterable[tuple[Row, SentenceScore | None]]) -> Iterator[tuple[Row, SentenceScore | None]]:
        for row, score in results:
            if score is not None and len(self.scores) < heat_map.MAX_SENTENCES:
                self.scores.append(score)
            else:
                self.omitted += score is not None
            yield row, score


def check_streams(ranks: Ranks, name: str, out: str | None) -> None:
    """Raises `RequestError` if several processes would share standard input or output."""
    if ranks.world > 1 and ("-" in (name, out) or (out and files.is_stream(Path(out)))):
        raise RequestError("several processes cannot share standard input or output: give --input FILE and --out FILE")


def write(
    results: Iterable[tuple[Row, T]], lines: Callable[[Row, T], Iterator[str]], header: str, ranks: Ranks, out: str | None, unit: str
) -> None:  # fmt: skip
    """All ranks: writes results to the file `out`, to standard output (`-`) or nowhere (None), with a progress bar."""
    with logs.progress(results, unit=f" {unit}") as bar:
        if out == "-":
            sys.stdout.write(header)
            for row, result in bar:
                sys.stdout.writelines(lines(row, result))
        elif out:
            score_files.write(bar, lines, header, ranks, Path(out))
        else:
            for _ in bar:
                pass

"""The command `score`, and what it shares with `pairs`: warnings about lines, and output to a file or standard output."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TypeVar

from packlm.base import files
from packlm.base import log as logs
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import sentences as scoring
from packlm.scoring.sentences import SentenceScore

from .. import inputs
from ..records import RecordFile
from . import files as score_files
from . import heat_map
from .files import ScoreWriter
from .sentence_files import R, Reader, Row, rows_of

log = logging.getLogger("packlm")

T = TypeVar("T")
MAX_WARNINGS = 10
"""Most lines with errors that are logged one by one; the others are counted."""


def run(model: str | Path, names: Sequence[str], out: str, html: Path | None, config: Config, ranks: Ranks, precision: str) -> None:
    """All ranks: scores the sentences of some files (`-`: standard input) to the file `out` (`-`: standard output), and as a heat map to
    `html`.

    Raises:
        RequestError: there is no such model, the input is not text, or several processes share standard input or output.
    """
    check_streams(ranks, names, out)
    if ranks.world > 1 and html:
        raise RequestError("--html needs all scores in one process: run it without torchrun")
    with ExitStack() as stack:
        files_of = [record_file(stack, name, config.score.format, config, "--score.format") for name in names]
        _score([Reader(one, config.score.text_field) for one in files_of], model, out, html, config, ranks, precision)


def _score(
    readers: Sequence[Reader], model: str | Path, out: str, html: Path | None, config: Config, ranks: Ranks, precision: str
) -> None:  # fmt: skip
    unit = row_unit(config.score.rows, readers)
    engine = Engine.load(model, ranks.device, config.tracking, precision)
    documents, description = context(engine, config.score.context)
    log.info("context: %s", description)
    rows = log_errors(score_files.rank_share(rows_of([(one.name, one.rows(documents)) for one in readers]), ranks), "sentences")
    writer = ScoreWriter(output_format(out), unit, passed_through(readers, out), len(readers) > 1)
    scores = score_files.score_rows(
        rows, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens, documents)
    )
    head = _Head()
    if html:
        scores = head.keep(scores)
    write(scores, writer.lines, writer.header, ranks, out, "sentences")
    if html:
        with files.atomic(html, "w") as stream:
            first, others = readers[0].name, len(readers) - 1
            title = f"Surprisal of {Path(first).name}{f' and {others} others' if others else ''} under {engine.info.name}"
            heat_map.write(head.scores, stream, title, f"Context: {description}.", head.omitted)


def context(engine: Engine, setting: str) -> tuple[bool, str]:
    """(whether a sentence follows those before it in its document, a description of that) for a value of `score.context`."""
    documents = not engine.isolated_sentences if setting == "auto" else setting == "document"
    if documents:
        engine.warn_of_context("document")
    description = "each sentence after those before it in its document" if documents else "each sentence by itself"
    return documents, description + (", as the model was trained" if setting == "auto" else "")


def record_file(
    stack: ExitStack, name: str, format: str, config: Config, setting: str, plain: Literal["text", "csv"] = "text"
) -> RecordFile:
    """Opens a file of records until the end of `stack`; arguments as of `RecordFile`."""
    stream = stack.enter_context(inputs.open_file(name))
    return RecordFile(stream, name, format, plain, setting, config.corpus.delimiter, config.corpus.quoting)


def output_format(out: str | None) -> str:
    """The format of a file of scores."""
    return "jsonl" if out and out.endswith(".jsonl") else "tsv"


def passed_through(readers: Sequence[Reader], out: str | None) -> list[str]:
    """The columns of a TSV that are those of any input; JSON needs no list, and its fields are not looked for."""
    if output_format(out) == "jsonl":
        return []
    return list(dict.fromkeys(name for reader in readers for name in reader.extra_columns()))


def row_unit(setting: str, readers: Sequence[Reader]) -> str:
    """What a row of a TSV is: `score.rows`, or for auto a region of suites and a word of other files."""
    suites = [reader.name for reader in readers if reader.is_suite]
    others = [reader.name for reader in readers if not reader.is_suite]
    if others and (setting == "region" or (setting == "auto" and suites)):
        raise RequestError(f"{others[0]}: not a SyntaxGym suite, so it has no regions; give --rows word, token or sentence")
    return setting if setting != "auto" else "region" if suites else "word"


def log_errors(rows: Iterable[R], unit: str) -> Iterator[R]:
    """The rows; logs the first ones with errors and the number of all of them. `unit`: what rows should be."""
    count = errors = 0
    for row in rows:
        count += 1
        if row.error:
            errors += 1
            if errors <= MAX_WARNINGS:
                log.warning("%sline %d: %s", f"{row.file} " if row.file else "", row.number, row.error)
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


def check_streams(ranks: Ranks, names: Sequence[str], out: str | None) -> None:
    """Raises `RequestError` if several processes would share standard input or output."""
    if ranks.world > 1 and ("-" in (*names, out) or (out and files.is_stream(Path(out)))):
        raise RequestError("several processes cannot share standard input or output: give --input FILE and --out FILE")


def write(
    results: Iterable[tuple[R, T]], lines: Callable[[R, T], Iterator[str]], header: str, ranks: Ranks, out: str | None, unit: str
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

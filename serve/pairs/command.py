"""The command `pairs`: which ranks, which files, where the summary goes."""

import logging
from collections.abc import Iterable
from pathlib import Path

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import sentences as scoring

from ..score import files as score_files
from ..score.command import check_streams, counting, deliver
from . import pairs
from . import summary as pairs_summary
from .pairs import Pairs, PairWriter
from .summary import PairCounts

log = logging.getLogger("packlm")


def run(
    model: str | Path, source: Iterable[bytes], name: str, out: str | None, summary: Path | None, config: Config, ranks: Ranks,
    precision: str = "full",
) -> None:  # fmt: skip
    """All ranks: scores the pairs of `source`, writes them to `out` (`-`: standard output) and what they come to to `summary`, as JSON.

    The summary goes to standard output for people to read, or to standard error where the pairs go there.

    Raises:
        RequestError: no such model, no pair in the input, or several processes with one standard input or output.
    """
    check_streams(ranks, name, out)
    engine = Engine.load(model, ranks.device, config.tracking, precision)
    settings, tally = config.pairs, PairCounts()
    given = Pairs(source, name, settings.format, settings.good, settings.bad, settings.group)
    rows = counting(score_files.share(given, ranks), "pairs")
    found = pairs.scored(
        rows, given.bad, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens)
    )
    found = tally.keep(found, given.group_of if settings.group else lambda row: "")
    writer = PairWriter("jsonl" if (out or "").endswith(".jsonl") else "tsv", given)
    deliver(found, writer.lines, writer.header, ranks, out, "pairs")
    tally.join(ranks)
    if not ranks.first:
        return
    made = {"model": engine.about.name, "weights_digest": engine.about.weights, "data": name} | tally.summary()
    if not made["pairs"]:
        raise RequestError(f"{name}: there is no pair in it")
    if summary:
        files.write_json(summary, made)
    if out == "-":
        log.info("%s", pairs_summary.table(made))
    else:
        print(pairs_summary.table(made))

"""The command `pairs`: scores minimal pairs and prints accuracies."""

import logging
from pathlib import Path
from typing import IO

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import sentences as scoring

from ..score import files as score_files
from ..score.command import check_streams, log_errors, write
from . import pairs
from . import summary as pairs_summary
from .pairs import PairReader, PairWriter
from .summary import PairCounts

log = logging.getLogger("packlm")


def run(
    model: str | Path, source: IO[bytes], name: str, out: str | None, summary: Path | None, config: Config, ranks: Ranks,
    precision: str = "full",
) -> None:  # fmt: skip
    """All ranks: scores the pairs of `source`, called `name`; writes them to `out` (`-`: standard output) and the accuracies to `summary`.

    The accuracies are printed to standard output, or to standard error if the pairs go to standard output.

    Raises:
        RequestError: there is no such model, no pair in the input, or several processes share standard input or output.
    """
    check_streams(ranks, name, out)
    engine = Engine.load(model, ranks.device, config.tracking, precision)
    settings, counts = config.pairs, PairCounts()
    reader = PairReader(source, name, settings.format, settings.good, settings.bad, settings.group)
    rows = log_errors(score_files.rank_share(reader, ranks), "pairs")
    results = pairs.score_pairs(
        rows, reader.bad, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens)
    )
    results = counts.count(results, reader.group_of if settings.group else lambda row: "")
    writer = PairWriter("jsonl" if (out or "").endswith(".jsonl") else "tsv", reader)
    write(results, writer.lines, writer.header, ranks, out, "pairs")
    counts.reduce(ranks)
    if not ranks.first:
        return
    values = {"model": engine.info.name, "weights_digest": engine.info.weights, "data": name} | counts.summary()
    if not values["pairs"]:
        raise RequestError(f"{name}: no pairs found")
    if summary:
        files.write_json(summary, values)
    if out == "-":
        log.info("%s", pairs_summary.table(values))
    else:
        print(pairs_summary.table(values))

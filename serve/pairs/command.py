"""The command `pairs`: scores minimal pairs and prints accuracies."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import sentences as scoring

from ..score import files as score_files
from ..score.command import check_streams, log_errors, output_format, passed_through, record_file, write
from ..score.sentence_files import rows_of
from . import pairs
from . import summary as pairs_summary
from .pairs import FILE, PairReader, PairWriter
from .summary import PairCounts

log = logging.getLogger("packlm")


def run(
    model: str | Path, names: Sequence[str], out: str | None, summary: Path | None, config: Config, ranks: Ranks, precision: str = "full"
) -> None:  # fmt: skip
    """All ranks: scores the pairs of some files (`-`: standard input); writes them to `out` (`-`: standard output) and the accuracies to
    `summary`.

    The accuracies are printed to standard output, or to standard error if the pairs go to standard output.

    Raises:
        RequestError: there is no such model, no pair in the input, or several processes share standard input or output.
    """
    check_streams(ranks, names, out)
    settings, counts, data = config.pairs, PairCounts(), ", ".join(names)
    with ExitStack() as stack:
        files_of = [record_file(stack, name, settings.format, config, "--pairs.format", "csv") for name in names]
        readers = [PairReader(one, settings.good, settings.bad, settings.group) for one in files_of]
        engine = Engine.load(model, ranks.device, config.tracking, precision)
        rows = log_errors(score_files.rank_share(rows_of([(reader.name, reader.rows()) for reader in readers]), ranks), "pairs")
        results = pairs.score_pairs(
            rows, lambda sentences: scoring.score(engine.model, engine.encoder, sentences, config.evaluate.batch_tokens)
        )
        results = counts.count(results, settings.group or (FILE if len(readers) > 1 else ""))
        writer = PairWriter(output_format(out), passed_through(readers, out), len(readers) > 1)
        write(results, writer.lines, writer.header, ranks, out, "pairs")
    counts.reduce(ranks)
    if not ranks.first:
        return
    values = {"model": engine.info.name, "weights_digest": engine.info.weights, "data": data} | counts.summary()
    if not values["pairs"]:
        raise RequestError(f"{data}: no pairs found")
    if warning := pairs_summary.warning(values):
        log.warning("%s", warning)
    if summary:
        files.write_json(summary, values)
    if out == "-":
        log.info("%s", pairs_summary.table(values))
    else:
        print(pairs_summary.table(values))

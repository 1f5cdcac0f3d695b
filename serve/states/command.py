"""The command `states`: the hidden states of the sentences of some files."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from packlm.base import log as logs
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.engine import Engine
from packlm.scoring.sentences import Sentence
from packlm.scoring.states import SentenceStates, states

from ..score.command import context, log_errors, record_file
from ..score.files import score_rows
from ..score.sentence_files import Reader, Row, rows_of
from . import files

log = logging.getLogger("packlm")


def run(
    model: str | Path, names: Sequence[str], out: Path, layers: Sequence[int] | None, unit: Literal["word", "token"], config: Config,
    precision: str,
) -> None:  # fmt: skip
    """Writes the states of some layers, None for all, after each word or token of the sentences of some files (`-`: standard input).

    Raises:
        RequestError: there is no such model or layer, or the input is not text.
    """
    engine = Engine.load(model, store=config.tracking, precision=precision)
    most = engine.info.model.layers
    chosen = list(range(most + 1)) if layers is None else layers
    if max(chosen) > most:
        raise RequestError(f"--layers {','.join(map(str, chosen))}: the model has layers 0 (the embedding) to {most}")
    widths = [(engine.info.model.embedding_width, *engine.info.model.widths)[layer] for layer in chosen]
    documents, description = context(engine, config.score.context)
    log.info("context: %s", description)
    with ExitStack() as stack:
        readers = [
            Reader(record_file(stack, name, config.score.format, config, "--score.format"), config.score.text_field) for name in names
        ]
        rows = log_errors(rows_of([(reader.name, reader.rows(documents)) for reader in readers]), "sentences")

        def of_sentences(sentences: Iterator[Sentence]) -> Iterator[SentenceStates]:
            return states(engine.model, engine.encoder, sentences, chosen, unit, config.evaluate.batch_tokens, documents)

        results: Iterator[tuple[Row, SentenceStates | None]] = score_rows(rows, of_sentences)
        with logs.progress(results, unit=" sentences") as bar:
            files.write(out, bar, dict(zip(chosen, widths, strict=True)), unit, len(names) > 1)

"""The command `evaluate`: measures plain text, or splits of a dataset, and writes the reports."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure

from . import page as report_page

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `evaluate` that are not settings."""

    text: Sequence[str]
    data: Path | None
    out: str | None
    precision: str


def run(model: str | Path, options: EvaluateOptions, config: Config, ranks: Ranks) -> None:
    """All ranks: measures the text of `--text`, or `evaluate.split` of the dataset of `--data` (the configured one without it).

    Raises:
        RequestError: there is no such model, text, dataset or split, or several splits for one page.
    """
    engine = Engine.load(model, ranks.device, config.tracking, options.precision)
    if options.text:
        report, changes = measure.measure_text(engine.model, engine.info, engine.encoder, options.text, config.evaluate, ranks)
        for reason, count in changes.items():
            log.info("%s: %d", reason, count)
        reports = [report]
    else:
        folder = options.data or config.dataset.dir
        manifest = dataset.read_manifest(folder)
        splits = config.evaluate.splits(manifest.splits)
        if len(splits) > 1 and (options.out or "").endswith(".md"):
            raise RequestError(f"--out {options.out}: a page holds one split; choose one with --split, or write a .json file")
        split_settings = [config.evaluate.model_copy(update={"split": split}) for split in splits]
        reports = [measure.measure_dataset(engine.model, engine.info, folder, manifest, settings, ranks) for settings in split_settings]
    if ranks.first:
        report_page.write_all(reports, options.out)

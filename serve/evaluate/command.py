"""The command `evaluate`: which text or which splits of a dataset; where the reports go."""

import logging
from argparse import Namespace
from pathlib import Path

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure

from . import page as report_page

log = logging.getLogger("packlm")


def run(model: str | Path, asked: Namespace, config: Config, ranks: Ranks) -> None:
    """All ranks: measures what the options `asked` name, see `serve.__main__`; without any, `evaluate.split` of the configured dataset.

    Raises:
        RequestError: no such model, text, dataset or split, or several splits for one page.
    """
    engine = Engine.load(model, ranks.device, config.tracking, asked.precision)
    if asked.text:
        found, counts = measure.measure_text(engine.model, engine.about, engine.encoder, asked.text, config.evaluate, ranks)
        for reason, count in counts.items():
            log.info("%s: %d", reason, count)
        made = [found]
    else:
        folder = asked.data or config.dataset.dir
        splits = config.evaluate.splits(dataset.read_manifest(folder).splits)
        if len(splits) > 1 and (asked.out or "").endswith(".md"):
            raise RequestError(f"--out {asked.out}: a page holds one split; give one with --split, or a .json file")
        chosen = [config.evaluate.model_copy(update={"split": split}) for split in splits]
        made = [measure.measure_dataset(engine.model, engine.about, folder, settings, ranks) for settings in chosen]
    if ranks.first:
        report_page.write_all(made, asked.out)

"""The command `evaluate`: which text or which splits of a dataset; where the reports go."""

import logging
from argparse import Namespace
from pathlib import Path

from pipeline import dataset
from pipeline.config import Config
from pipeline.errors import RequestError
from serve import measuring, report_page
from serve.engine import Engine
from train.distributed import Ranks

log = logging.getLogger("packlm")


def run(model: str | Path, asked: Namespace, config: Config, ranks: Ranks) -> None:
    """All ranks: measures what the options `asked` name, see `serve.__main__`; without any, `evaluate.split` of the configured dataset.

    Raises:
        RequestError: no such model, text, dataset or split, or several splits for one page.
    """
    engine = Engine.load(model, ranks.device, config.tracking, asked.precision)
    if asked.text:
        found, counts = measuring.measure_text(engine.model, engine.about, engine.encoder, asked.text, config.evaluate, ranks)
        for reason, count in counts.items():
            log.info("%s: %d", reason, count)
        made = [found]
    else:
        folder = asked.data or config.dataset.dir
        splits = config.evaluate.splits(dataset.read_manifest(folder).splits)
        if len(splits) > 1 and (asked.out or "").endswith(".md"):
            raise RequestError(f"--out {asked.out}: a page holds one split; give one with --split, or a .json file")
        chosen = [config.evaluate.model_copy(update={"split": split}) for split in splits]
        made = [measuring.measure_dataset(engine.model, engine.about, folder, settings, ranks) for settings in chosen]
    if ranks.first:
        report_page.write_all(made, asked.out)

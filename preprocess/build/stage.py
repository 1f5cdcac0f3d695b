"""The entry points of the stage: `build` makes a dataset, `repair` makes its damaged files again."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from packlm import dataset, tracking
from packlm.base import escape
from packlm.base.errors import PacklmError, RequestError, resumable
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text import tokenizer, tokenizers

from .. import overlap, report
from ..executors.runner import TaskRunner
from .builder import Builder
from .provenance import Provenance, changes
from .work_folder import locked

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class Built:
    """A dataset, and the seconds that this run took to make it; None if it was up to date."""

    manifest: Manifest
    seconds: float | None


@resumable()
def build(config: Config, rebuild: bool = False) -> Built:
    """Makes the dataset of a configuration in `dataset.dir`, unless it is up to date.

    Raises:
        RequestError: the folder has a dataset made from something else and `rebuild` is false (the message lists the differences), or
            something that is not a dataset.
        PacklmError: bad text, a full disk, a killed worker, or another process works on the same dataset.
    """
    start = time.monotonic()
    folder = config.dataset.dir
    tokenizers.check(config.tokenizer)
    with TaskRunner(config.dataset) as runner, locked(folder):
        exists = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if exists and not (folder / "manifest.json").exists():
            raise RequestError(f"{folder}: not a dataset; left untouched; give another --dataset.dir")
        builder = Builder(config, runner)
        if exists and not rebuild:
            manifest = dataset.read_manifest(folder)
            _check_unchanged(folder, manifest, builder.provenance)
            tokens = ", ".join(f"{split.tokens:,} {name} tokens" for name, split in manifest.splits.items())
            log.info("%s: up to date (%s)", folder, tokens)
            builder.work_folder.delete()
            return Built(manifest, None)
        tracking.begin(config, "preprocess")  # before the dataset is published: if this process is killed, the next one records it
        manifest = builder.build()
        return Built(manifest, time.monotonic() - start)


def repair(config: Config, folder: Path) -> list[str]:
    """Makes the damaged files of a dataset again, from its corpus, and touches no other file; returns their names.

    Raises:
        RequestError: the dataset was made from another configuration or corpus.
        PacklmError: a file differs from its digest in the manifest even when made again (another version of a library).
    """
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"dir": folder})})
    with TaskRunner(config.dataset) as runner, locked(folder):
        manifest = dataset.read_manifest(folder)
        damaged = list(dataset.damaged(folder, manifest))
        if not damaged:
            return []
        if dataset.SOURCES in damaged or tokenizer.NAME in damaged or any(name.endswith(".parquet") for name in damaged):
            builder = Builder(config, runner)
            if dataset.SOURCES not in damaged:
                _check_unchanged(folder, manifest, builder.provenance)
            elif dataset.corpus_digest(builder.provenance.corpus) == manifest.digests["corpus"]:
                dataset.write_sources(folder, builder.provenance.corpus)
                _check_unchanged(folder, manifest, builder.provenance)
            else:
                raise RequestError(f"{folder}: made from another corpus, and its list of sources is damaged; replace it with --rebuild")
            builder.rebuild_files(damaged, manifest)
            builder.work_folder.delete()
        if "tokenizer_config.json" in damaged:
            tokenizer.save((folder / tokenizer.NAME).read_text(encoding="utf-8"), folder)
        if any(name.startswith("report/") for name in damaged):
            report.write(folder, report.measure(folder, manifest.splits))
            overlap.write(folder, manifest.splits)
        dataset.write_manifest(folder, manifest)
        if still_damaged := dataset.damaged(folder, manifest):
            raise PacklmError(escape.lines(*(f"{name}: rebuilt, but different: {problem}" for name, problem in still_damaged.items())))
        return damaged


def _check_unchanged(folder: Path, manifest: Manifest, provenance: Provenance) -> None:
    if differences := changes(Provenance(manifest.settings, dataset.read_sources(folder, manifest)), provenance):
        lines = [f"{folder}: made from something else:", *(f"  {line}" for line in differences)]
        raise RequestError(escape.lines(*lines, "replace it with --rebuild, or give another --run.name"))

"""The stage: makes the dataset beside its place, going on where an interrupted run stopped, and puts it there in whole.

    .NAME.building/KEY/dataset/    the dataset in the making; KEY is a digest of settings, corpus and library versions
    .NAME.building/KEY/done/       what finished steps left: tokenizer.json, train-00000-of-00008.json, ...
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import config, dataset, files
from pipeline.changes import differences
from pipeline.config import Config
from pipeline.errors import PacklmError, RequestError
from preprocess import executors, plan, sentences, shards, tokenizer
from preprocess.encoding import Encoder

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class Built:
    """A dataset that is there, and how long this run took to make it; None if it was there already."""

    manifest: dataset.Manifest
    seconds: float | None


def build(settings: Config, rebuild: bool = False) -> Built:
    """Makes the dataset of a configuration at `dataset.dir`, or finds that it is there.

    Raises:
        RequestError: something else is there, and `rebuild` is not asked for; the message says what differs.
        PacklmError: bad text, a full disk, a killed worker, or another process at work on the same dataset.
    """
    began = time.monotonic()
    folder = settings.dataset.dir
    tokenizer.check(settings.tokenizer)
    with files.lock(folder.with_name(f".{folder.name}.lock"), what=folder):
        files.recover_folder(folder)
        there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if there and not (folder / "manifest.json").exists():
            raise RequestError(f"{folder}: there is something here that is no dataset, and stays as it is; give another --dataset.dir")
        surveyed = plan.survey(settings, _spelled_eos(settings.tokenizer))
        recorded = _recorded(settings)
        if there and not rebuild:
            manifest = _unchanged(folder, recorded, surveyed.corpus)
            log.info("%s: up to date (%s)", folder, _summary(manifest))
            shutil.rmtree(_building(folder), ignore_errors=True)
            return Built(manifest, None)
        manifest = _make(settings, recorded, surveyed)
        return Built(manifest, time.monotonic() - began)


def _make(settings: Config, recorded: dict[str, Any], surveyed: plan.Survey) -> dataset.Manifest:
    folder = settings.dataset.dir
    versions = [dataset.VERSION, version("tokenizers"), version("pyarrow"), version("sentencex")]
    work = _work_folder(folder, files.digest([recorded, list(surveyed.corpus.items()), versions]))
    making, done = work / "dataset", work / "done"
    planned = plan.tasks(surveyed, settings.corpus, settings.dataset.shards)
    _tokenizer(settings, planned, making, done)
    encoder = Encoder.load(making)

    rows, length = settings.dataset.rows, settings.dataset.length
    jobs = [shards.Job(task, settings.corpus, rows, length, making, done / f"{task.name}.json") for task in planned]
    missing = [job for job in jobs if shards.finished(job) is None]
    if len(missing) < len(jobs):
        log.info("%d of %d shards are there from an interrupted run", len(jobs) - len(missing), len(jobs))
    executors.run(shards.make, missing, settings.dataset.workers or os.cpu_count() or 1)
    if changed := surveyed.changed():
        raise PacklmError(f"{changed[0].path}: changed while it was being read ({len(changed)} files did); run the same command again")

    made = [files.read_json(job.done) for job in jobs]
    of_split = {split: [result for job, result in zip(jobs, made, strict=True) if job.task.split == split] for split in surveyed.parts}
    splits = {split: _total(results) for split, results in of_split.items()}
    manifest = dataset.Manifest(
        settings=recorded,
        corpus=surveyed.corpus,
        digests={
            "settings": files.digest(recorded),
            "corpus": files.digest(list(surveyed.corpus.items())),
            "tokenizer": encoder.digest,
            "ids": files.digest([result["ids"] for result in made]),
            "content": dataset.content_digest(splits),
        },
        vocab_size=encoder.vocab_size,
        length=length,
        lossless=encoder.lossless,
        splits=splits,
        counts=surveyed.counts,
    )
    dataset.write_manifest(making, manifest)
    files.replace_folder(making, folder)
    shutil.rmtree(_building(folder))
    return manifest


def _tokenizer(settings: Config, planned: list[plan.Task], making: Path, done: Path) -> None:
    """Trains or copies the tokenizer into the dataset, unless an interrupted run has done so."""
    marker, path = done / tokenizer.NAME, making / tokenizer.NAME
    if marker.exists() and path.is_file() and files.read_json(marker) == files.sha256(path):
        return
    if settings.tokenizer.file is not None:
        text = settings.tokenizer.file.read_text(encoding="utf-8")
    else:
        text = tokenizer.train(settings.tokenizer, _training_sentences(settings, planned)).to_str(pretty=True)
    tokenizer.save(text, making)
    files.write_json(marker, files.sha256(path))


def _training_sentences(settings: Config, planned: list[plan.Task]) -> Iterator[str]:
    rules = settings.corpus
    for task in planned:
        if task.split == "train":
            for document in plan.read(task, rules, settings.tokenizer.kind == "word"):
                yield from (sentence for sentence, _ in sentences.split(document.text, rules.sentences, rules.language)[1])


def _spelled_eos(settings: config.Tokenizer) -> bool:
    """Whether words spelled `<eos>` would become the special token; of a tokenizer to be trained, its kind tells."""
    if settings.file is not None:
        return Encoder(tokenizer.load(settings.file), "").spelled_eos
    return settings.kind == "word"


def _recorded(settings: Config) -> dict[str, Any]:
    """The settings that the dataset's content depends on. Of files, the manifest has digests, and no paths of this machine."""
    given = settings.tokenizer.file
    return {
        "corpus": settings.corpus.model_dump(mode="json", exclude=set(dataset.SPLITS)),
        "tokenizer": {**settings.tokenizer.model_dump(mode="json"), "file": given and files.sha256(given)},
        "dataset": settings.dataset.model_dump(mode="json", exclude={"dir", "workers"}),
    }


def _unchanged(folder: Path, recorded: dict[str, Any], corpus: dict[str, str]) -> dataset.Manifest:
    """The manifest of the dataset that is there; `RequestError` listing what differs where it was made from something else."""
    manifest = dataset.read_manifest(folder)
    changes = differences(manifest.settings, recorded)
    old = manifest.corpus
    for what, names in (
        ("added", [name for name in corpus if name not in old]),
        ("changed", [name for name in corpus if name in old and old[name] != corpus[name]]),
        ("removed", [name for name in old if name not in corpus]),
    ):
        changes += [f"{what}: {name}" for name in names[:10]] + ([f"{what}: {len(names) - 10:,} more"] if len(names) > 10 else [])
    if not changes and list(old) != list(corpus):
        changes.append("the files come in another order")
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise RequestError(f"{folder}: made from something else:\n{lines}\nreplace it with --rebuild, or give another --run.name")
    return manifest


def _building(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building")


def _work_folder(folder: Path, key: str) -> Path:
    """The work folder of this build; throws away that of any other, and whatever a killed process was in the middle of writing."""
    work = _building(folder) / key[:16]
    if _building(folder).exists():
        for other in _building(folder).iterdir():
            if other != work:
                shutil.rmtree(other)
        for unfinished in work.rglob(".*.tmp"):
            unfinished.unlink()
    work.mkdir(parents=True, exist_ok=True)
    return work


def _total(made: list[dict[str, Any]]) -> dataset.Split:
    """A split's numbers from those of its shards."""
    statistics = [shards.Statistics(**result["statistics"]) for result in made]
    listed: dict[str, dict[str, dataset.Shard]] = {view: {} for view in dataset.VIEWS}
    for result in made:
        for view, written in result["files"].items():
            listed[view] |= {name: dataset.Shard(**shard) for name, shard in written.items()}
    return dataset.Split(
        documents=sum(part.documents for part in statistics),
        sentences=sum(part.sentences for part in statistics),
        tokens=sum(part.tokens for part in statistics),
        words=sum(part.words for part in statistics),
        bytes=sum(part.bytes for part in statistics),
        unknown=sum(part.unknown for part in statistics),
        longest_sentence=max(part.longest_sentence for part in statistics),
        files=listed,
    )


def _summary(manifest: dataset.Manifest) -> str:
    return ", ".join(f"{split.tokens:,} {name} tokens" for name, split in manifest.splits.items())

"""The stage: makes the dataset beside its place, going on where an interrupted run stopped, and puts it there in whole.

    .NAME.building/downloads/      what came through standard input or from the hub
    .NAME.building/KEY/texts/      what was collected; KEY is a digest of settings, library versions and corpus
    .NAME.building/KEY/counts/     words or characters of the training split
    .NAME.building/KEY/dataset/    the dataset in the making
    .NAME.building/KEY/done/       what finished shards left

Steps, each of tasks that may run anywhere: scan -> extract -> plan -> learn the tokenizer -> shards -> report, manifest.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text import tokenizer, tokenizers
from packlm.text.encoder import Encoder

from .. import report
from ..executors.runner import TaskRunner
from . import extract, learn, plan, scan, shards
from .provenance import Provenance, difference, settings_of

log = logging.getLogger("packlm")

Job = TypeVar("Job", extract.ExtractTask, learn.CountTask, shards.ShardTask)


@dataclass(frozen=True)
class Built:
    """A dataset that is there, and how long this run took to make it; None if it was there already."""

    manifest: Manifest
    seconds: float | None


def build(settings: Config, rebuild: bool = False) -> Built:
    """Makes the dataset of a configuration at `dataset.dir`, or finds that it is there.

    Raises:
        RequestError: something else is there, and `rebuild` is not asked for; the message says what differs.
        PacklmError: bad text, a full disk, a killed worker, or another process at work on the same dataset.
    """
    began = time.monotonic()
    folder = settings.dataset.dir
    tokenizers.check(settings.tokenizer)
    with TaskRunner(settings.dataset) as crew, _held(folder):
        there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if there and not (folder / "manifest.json").exists():
            raise RequestError(f"{folder}: there is something here that is no dataset, and stays as it is; give another --dataset.dir")
        making = _Build(settings, crew)
        if there and not rebuild:
            manifest = dataset.read_manifest(folder)
            _refuse_difference(folder, manifest, making.origin)
            log.info("%s: up to date (%s)", folder, ", ".join(f"{split.tokens:,} {name} tokens" for name, split in manifest.splits.items()))
            shutil.rmtree(_building(folder), ignore_errors=True)
            return Built(manifest, None)
        manifest = making.whole()
        return Built(manifest, time.monotonic() - began)


def repair(settings: Config, folder: Path) -> list[str]:
    """Makes the damaged files of a dataset anew, from the corpus it was made of, and leaves all others alone; returns their names.

    Raises:
        RequestError: the configuration or the corpus is not what the dataset was made from.
        PacklmError: what was made anew differs from what the manifest tells (another version of a library).
    """
    settings = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"dir": folder})})
    with TaskRunner(settings.dataset) as crew, _held(folder):
        manifest = dataset.read_manifest(folder)
        damaged = list(dataset.damaged(folder, manifest))
        if not damaged:
            return []
        if "tokenizer.json" in damaged or any(name.endswith(".parquet") for name in damaged):
            making = _Build(settings, crew)
            _refuse_difference(folder, manifest, making.origin)
            making.again(damaged, manifest)
        if "tokenizer_config.json" in damaged:
            tokenizer.save((folder / tokenizer.NAME).read_text(encoding="utf-8"), folder)
        if any(name.startswith("report/") for name in damaged):
            report.write(folder, report.measure(folder, manifest.splits))
        dataset.write_manifest(folder, manifest)
        if left := dataset.damaged(folder, manifest):
            raise PacklmError("\n".join(f"{name}: made anew it differs still: {what}" for name, what in left.items()))
        shutil.rmtree(_building(folder), ignore_errors=True)
        return damaged


class _Build:
    """The steps that make a dataset, in its work folder. Scans the corpus when created."""

    def __init__(self, settings: Config, crew: TaskRunner):
        self.settings, self.crew = settings, crew
        self.ready = tokenizers.KINDS[settings.tokenizer.kind].pretrained(settings.tokenizer)
        self.scan = scan.scan_corpus(settings, _building(settings.dataset.dir) / "downloads")
        self.origin = Provenance(settings_of(settings, self.ready), self.scan.digests)
        self.counts: Counter[str] = Counter()

    @cached_property
    def work(self) -> Path:
        """The work folder for this corpus and these settings."""
        versions = [dataset.VERSION, version("tokenizers"), version("pyarrow"), version("sentencex"), version("matplotlib")]
        inputs = [self.origin.settings, dataset.corpus_digest(self.origin.corpus), versions]
        return _work_folder(self.settings.dataset.dir, files.digest(inputs))

    @property
    def making(self) -> Path:
        """The dataset in the making."""
        return self.work / "dataset"

    def whole(self) -> Manifest:
        """Makes all of it, and puts it in its place."""
        found, planned = self.collect()
        self.learn(found)
        jobs = self.shards(planned)
        encoder = Encoder.load(self.making)
        made = [shards.result(job) for job in jobs]
        of_split = {split: [part for part, job in zip(made, jobs, strict=True) if job.task.split == split] for split in _splits(planned)}
        splits = {split: _total(parts) for split, parts in of_split.items()}
        if overlong := sum(split.overlong for split in splits.values()):
            done = "split" if self.settings.corpus.on_overlong == "split" else "kept"
            self.counts[f"sentences of more than {self.settings.corpus.max_tokens} tokens {done}"] = overlong
        none = report.Measures.none(encoder.vocab_size)
        measures = {split: sum((report.Measures.load(job.measures) for job in jobs if job.task.split == split), none) for split in splits}
        written = report.write(self.making, measures)
        others = [self.making / tokenizer.NAME, self.making / "tokenizer_config.json", *written]
        manifest = Manifest(
            settings=self.origin.settings,
            corpus=self.origin.corpus,
            digests={
                "settings": files.digest(self.origin.settings),
                "corpus": dataset.corpus_digest(self.origin.corpus),
                "tokenizer": encoder.digest,
                "ids": files.digest([part["ids"] for part in made]),
                "content": dataset.content_digest(splits),
            },
            vocab_size=encoder.vocab_size,
            length=self.settings.dataset.length,
            lossless=encoder.lossless,
            splits=splits,
            counts=dict(sorted(self.counts.items())),
            files={path.relative_to(self.making).as_posix(): files.sha256(path) for path in others},
        )
        folder = self.settings.dataset.dir
        dataset.write_manifest(self.making, manifest)
        files.replace_folder(self.making, folder)
        shutil.rmtree(_building(folder))
        return manifest

    def again(self, damaged: list[str], manifest: Manifest) -> None:
        """Makes a damaged tokenizer and damaged shards anew, and puts each in its place if it is what it was."""
        folder = self.settings.dataset.dir
        found, planned = self.collect()
        if tokenizer.NAME in damaged:
            self.learn(found)
        else:
            tokenizer.save((folder / tokenizer.NAME).read_text(encoding="utf-8"), self.making)
        jobs = self.shards(planned, lambda job: any(job.file(view) in damaged for view in dataset.VIEWS))
        names = [name for name in (tokenizer.NAME, *(job.file(view) for job in jobs for view in dataset.VIEWS)) if name in damaged]
        differing = dataset.damaged(self.making, manifest)
        if wrong := [name for name in names if name in differing]:
            raise PacklmError(
                f"{folder}: {wrong[0]} made anew is not what it was ({differing[wrong[0]]}): the versions of the libraries are others "
                "than those it was made with; `python -m preprocess --rebuild` makes the dataset anew"
            )
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (self.making / name).replace(folder / name)
            files.fsync_folder((folder / name).parent)

    def collect(self) -> tuple[list[plan.ExtractedFile], list[plan.ShardPlan]]:
        """Collects the text, counting what was cleaned, and plans the shards."""
        rules = self.settings.corpus
        spelled_eos = learn.spelled_eos(self.settings.tokenizer, self.ready)
        jobs = extract.tasks(self.scan, rules, spelled_eos, self._folder("texts"))
        self._run(extract.make, jobs, extract.ExtractTask.finished, "extracting text")
        if changed := self.scan.changed():
            raise PacklmError(f"{changed[0].path}: changed while it was being read ({len(changed)} files did); run the same command again")
        for job in jobs:
            self.counts.update(extract.result(job)["counts"])
        found = plan.found(jobs)
        if rules.duplicates == "skip":
            found, again = plan.without_duplicates(jobs, found)
            self.counts["duplicate documents skipped"] += again
        self.counts = +self.counts
        planned = plan.tasks(found, self.settings.dataset.shards)
        if "train" not in _splits(planned):
            what = "; ".join(f"{reason}: {count:,}" for reason, count in self.counts.items()) or "nothing skipped"
            raise RequestError(f"corpus.train: no text to train on in {len(self.scan.states):,} sources ({what})")
        return found, planned

    def learn(self, found: Sequence[plan.ExtractedFile]) -> None:
        """Trains or copies the tokenizer into the dataset, unless an interrupted run has done so."""
        folder = self._folder("counts")
        marker, path = folder / "tokenizer.done.json", self.making / tokenizer.NAME
        if marker.exists() and path.is_file() and files.read_json(marker) == files.sha256(path):
            return
        text = self.ready
        if text is None:
            text = learn.learn(
                self.settings, found, folder, lambda jobs: self._run(learn.count, jobs, learn.CountTask.finished, "counting")
            )
        tokenizer.save(text, self.making)
        files.write_json(marker, files.sha256(path))

    def shards(
        self, planned: Sequence[plan.ShardPlan], wanted: Callable[[shards.ShardTask], bool] = lambda job: True
    ) -> list[shards.ShardTask]:
        """Makes the shards of both views."""
        settings, done = self.settings, self._folder("done")
        given = (settings.corpus, settings.dataset.rows, settings.dataset.length, self.making)
        jobs = [shards.ShardTask(task, *given, done / f"{task.name}.json") for task in planned]
        jobs = [job for job in jobs if wanted(job)]
        self._run(shards.make, jobs, shards.finished, "making shards", report.prepare)
        return jobs

    def _run(
        self,
        function: Callable[[Job], None],
        jobs: Sequence[Job],
        finished: Callable[[Job], bool],
        what: str,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        missing = [job for job in jobs if not finished(job)]
        if len(missing) < len(jobs):
            log.info("%s: %d of %d tasks are done from an interrupted run", what, len(jobs) - len(missing), len(jobs))
        self.crew.run(function, missing, what, self.work / "records", meanwhile)

    def _folder(self, name: str) -> Path:
        (self.work / name).mkdir(exist_ok=True)
        return self.work / name


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps other processes from the dataset, and sets right what a crash has left between two names."""
    with files.lock(folder.with_name(f".{folder.name}.lock"), what=folder):
        files.recover_folder(folder)
        yield


def _refuse_difference(folder: Path, manifest: Manifest, origin: Provenance) -> None:
    if changes := difference(Provenance(manifest.settings, manifest.corpus), origin):
        lines = "\n".join(f"  {change}" for change in changes)
        raise RequestError(f"{folder}: made from something else:\n{lines}\nreplace it with --rebuild, or give another --run.name")


def _building(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building")


def _work_folder(folder: Path, key: str) -> Path:
    """The work folder of this build; throws away that of any other, and whatever a killed process was in the middle of writing."""
    work = _building(folder) / key[:16]
    if _building(folder).exists():
        for other in _building(folder).iterdir():
            if other != work and other.name != "downloads":
                shutil.rmtree(other)
        for unfinished in work.rglob(".*.tmp"):
            unfinished.unlink()
    work.mkdir(parents=True, exist_ok=True)
    return work


def _splits(planned: Sequence[plan.ShardPlan]) -> list[str]:
    """The splits that have documents, in order."""
    return list(dict.fromkeys(task.split for task in planned))


def _total(made: list[dict[str, Any]]) -> dataset.Split:
    """A split's numbers from those of its shards."""
    statistics = [part["statistics"] for part in made]
    listed: dict[str, dict[str, dataset.Shard]] = {view: {} for view in dataset.VIEWS}
    for part in made:
        for view, written in part["files"].items():
            listed[view] |= {name: dataset.Shard(**shard) for name, shard in written.items()}
    sums = {key: sum(part[key] for part in statistics) for key in statistics[0] if key != "longest_sentence"}
    return dataset.Split(**sums, longest_sentence=max(part["longest_sentence"] for part in statistics), files=listed)

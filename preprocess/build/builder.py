"""The steps that make a dataset, in order. Each skips the tasks that an interrupted run has completed."""

import logging
from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from packlm import dataset
from packlm.base import completion, files
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config
from packlm.corpus import bad_files
from packlm.corpus.transcoding import NotEncoded
from packlm.dataset import Manifest
from packlm.text import tokenizer, tokenizers

from ..executors.runner import TaskRunner
from . import duplicates, extract, learn, shards
from .assemble import assemble
from .extracted_file import ExtractedFile
from .plan import ShardPlan, plan_shards
from .provenance import Provenance, content_settings
from .scan import scan_corpus
from .shards import MadeShard, ShardTask
from .task import Task
from .work_folder import WorkFolder

log = logging.getLogger("packlm")

AnyTask = TypeVar("AnyTask", bound=Task)


class Builder:
    """Makes a dataset, or parts of it. Scans the corpus when created."""

    def __init__(self, config: Config, runner: TaskRunner):
        self.config, self.runner = config, runner
        self.work_folder = WorkFolder(files.followed(config.dataset.dir))  # a symbolic link stays, and so its target's file system
        self.pretrained = tokenizers.KINDS[config.tokenizer.kind].pretrained(config.tokenizer)
        """The JSON of the pretrained tokenizer; None if one is to be trained."""
        self.scan = scan_corpus(config, self.work_folder.downloads)
        self.provenance = Provenance(content_settings(config, self.pretrained), self.scan.digests)
        self.counts: Counter[str] = Counter()
        """Documents skipped, lines dropped, and so on, by reason."""

    @cached_property
    def work(self) -> Path:
        return self.work_folder.open(self.provenance)

    @property
    def unfinished(self) -> Path:
        """The dataset's folder while it is being made."""
        return self.work / "dataset"

    def build(self) -> Manifest:
        """Runs all steps, and puts the dataset in its place."""
        extracted = self.extract()
        plans = self.plan(extracted)
        self.learn(extracted)
        made = [MadeShard.of(task) for task in self.make_shards(plans)]
        splits = {split: [shard for shard in made if shard.split == split] for split in dict.fromkeys(plan.split for plan in plans)}
        manifest = assemble(self.unfinished, self.config, self.provenance, splits, self.counts)
        files.remove_temporaries(self.unfinished)  # of worker processes that were killed
        files.replace_folder(self.unfinished, self.work_folder.dataset_folder)
        self.work_folder.delete()
        return manifest

    def rebuild_files(self, damaged: Container[str], manifest: Manifest) -> None:
        """Makes the damaged ones of tokenizer and shards again, and replaces each if it has the digest in the manifest."""
        folder = self.config.dataset.dir
        extracted = self.extract()
        plans = self.plan(extracted)
        if tokenizer.NAME in damaged:
            self.learn(extracted)
        else:
            tokenizer.save((folder / tokenizer.NAME).read_text(encoding="utf-8"), self.unfinished)
        tasks = self.make_shards(plans, lambda task: any(task.file(view) in damaged for view in dataset.VIEWS))
        names = [name for name in (tokenizer.NAME, *(task.file(view) for task in tasks for view in dataset.VIEWS)) if name in damaged]
        still_damaged = dataset.damaged(self.unfinished, manifest)
        if differing := [name for name in names if name in still_damaged]:
            raise PacklmError(
                f"{folder}: {differing[0]}: rebuilt, but different ({still_damaged[differing[0]]}): other versions of libraries than when "
                "the dataset was made; `packlm preprocess --rebuild` makes all of it again"
            )
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (self.unfinished / name).replace(folder / name)
            files.fsync_folder((folder / name).parent)

    def extract(self) -> list[ExtractedFile]:
        """Extracts the documents, and skips duplicates if told so."""
        corpus = self.config.corpus
        spelled_eos = learn.spelled_eos(self.config.tokenizer, self.pretrained)
        tasks = extract.tasks(self.scan, corpus, spelled_eos, self.work / "extracted")
        if chosen := bad_files.chosen_encodings(self.scan.states, corpus):
            log.info("%s", chosen)
        try:
            self._run(extract.run, tasks, "extracting text")
        except NotEncoded as error:
            raise bad_files.all_of(error, self.scan.states) from None
        if changed := self.scan.changed():
            raise PacklmError(f"{changed[0].path}: changed while it was being read ({len(changed)} files did); run the same command again")
        extracted, counts = extract.results(tasks)
        if corpus.duplicates == "skip":
            extracted, counts["duplicate documents skipped"] = duplicates.skip(extracted, [task.keys for task in tasks])
        self.counts = +counts + bad_files.encoding_counts(self.scan.states, corpus)
        for warning in extract.wrong_encodings(tasks):
            log.warning("%s", warning)
        return extracted

    def plan(self, extracted: Sequence[ExtractedFile]) -> list[ShardPlan]:
        """Plans the shards; `RequestError` if there is no training text."""
        plans = plan_shards(extracted, self.config.dataset.shards)
        if not any(plan.split == "train" for plan in plans):
            counts = "; ".join(f"{reason}: {count:,}" for reason, count in self.counts.items()) or "nothing skipped"
            raise RequestError(f"corpus.train: no text to train on in {len(self.scan.states):,} sources ({counts})")
        return plans

    def learn(self, extracted: Sequence[ExtractedFile]) -> None:
        """Trains the tokenizer, or copies the pretrained one, into the dataset."""
        record = self.work / "counts" / "tokenizer.json"
        if completion.is_complete(record, {}):
            return
        text = self.pretrained or learn.train_tokenizer(
            self.config, extracted, record.parent, lambda tasks: self._run(learn.count, tasks, "counting")
        )
        tokenizer.save(text, self.unfinished)
        completion.write(record, {}, [self.unfinished / name for name in (tokenizer.NAME, "tokenizer_config.json")])

    def make_shards(self, plans: Sequence[ShardPlan], condition: Callable[[ShardTask], bool] = lambda task: True) -> list[ShardTask]:
        """Makes the shards of both views, or those whose task fulfils a condition; returns their tasks."""
        settings = self.config.dataset
        arguments = (self.config.corpus, settings.rows, settings.length, self.unfinished, self.work / "shards")
        tasks = [task for task in (ShardTask(plan, *arguments) for plan in plans) if condition(task)]
        self._run(shards.make, tasks, "making shards")
        return tasks

    def _run(self, function: Callable[[AnyTask], None], tasks: Sequence[AnyTask], label: str) -> None:
        missing = [task for task in tasks if not task.is_complete()]
        if len(missing) < len(tasks):
            log.info("%s: resuming, %d of %d tasks already complete", label, len(tasks) - len(missing), len(tasks))
        self.runner.run(function, missing, label, self.work / "executor")

"""Trains the tokenizer on the training split: tasks count the entries of some documents each, and the merged counts give the tokenizer.

Word and character vocabularies are trained on all text, byte-level BPE on a sample.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packlm import config
from packlm.base import completion
from packlm.config import Config, Corpus
from packlm.dataset import SPLITS
from packlm.text import pretokens, sentences, tokenizer, tokenizers
from packlm.text.encoder import Encoder
from packlm.text.tokenizers.bpe import in_sample

from . import vocabulary
from .extracted_file import ExtractedFile
from .plan import ShardPlan, plan_shards
from .task import Task

log = logging.getLogger("packlm")

_TASK_BYTES = 1 << 26  # bytes of text per task: its distinct entries fit in memory


@dataclass(frozen=True)
class CountTask(Task):
    """Counts the entries (`TokenizerKind.entries`) in some documents of the training split; writes a table of them."""

    documents: ShardPlan
    share: float
    """Share of the documents that are counted; chosen by a hash of their names."""
    corpus: Corpus
    tokenizer: config.Tokenizer
    folder: Path

    @property
    def name(self) -> str:
        return f"count-{self.documents.name}"

    @property
    def size(self) -> int:
        return self.documents.size


def count(task: CountTask) -> None:
    """Runs a task."""
    counter = vocabulary.EntryCounter(task.tokenizer)
    normalized = tokenizers.KINDS[task.tokenizer.kind].normalizer(task.tokenizer) is not None
    for texts, pieces in task.documents.read():
        if pieces is None:
            pieces = sentences.piece_starts(texts, task.corpus.sentences, task.corpus.language)
        spans = sentences.spans(texts, pieces)
        sampled = in_sample(texts.names, task.share)[spans.documents]
        for values, counts in pretokens.counts(texts.data, spans.starts[sampled], spans.ends[sampled], normalized, texts.edges):
            counter.add(values, counts)
    counter.write(task.path)
    completion.write(task.record, task.inputs(), [task.path])


def spelled_eos(settings: config.Tokenizer, pretrained: str | None) -> str:
    """`Encoder.spelled_eos` of the pretrained tokenizer, or of any tokenizer that these settings train."""
    text = tokenizers.train(settings, []).to_str() if pretrained is None else pretrained
    return Encoder(tokenizer.parse(text, str(settings.file)), "").spelled_eos


def train_tokenizer(settings: Config, extracted: Sequence[ExtractedFile], folder: Path, run: Callable[[Sequence[CountTask]], None]) -> str:
    """Trains a tokenizer; returns its JSON.

    Args:
        folder: where tasks write their counts.
        run: runs those of the tasks that are not complete.
    """
    kind = tokenizers.KINDS[settings.tokenizer.kind]
    size = sum(int(file.bytes[:, SPLITS.index("train")].sum()) for file in extracted)
    chosen = kind.resolve(settings.tokenizer, size)
    share = settings.tokenizer.sample_bytes / max(size, 1) if kind.sampled else 1.0
    plans = [plan for plan in plan_shards(extracted, -(-size // _TASK_BYTES)) if plan.split == "train"]
    tasks = [CountTask(plan, share, settings.corpus, settings.tokenizer, folder) for plan in plans]
    run(tasks)
    if settings.tokenizer.vocab_size is None and kind.default_vocab_size(None) is None:
        log.info("tokenizer.vocab_size: %s, for %.1f MB of training text", f"{chosen.vocab_size:,}", size / 1e6)
    assert chosen.min_count is not None
    counts = vocabulary.merge([task.path for task in tasks], kind.num_entries(chosen), chosen.min_count, kind.priorities)
    return kind.train(chosen, counts.entries, counts.tokens).to_str(pretty=True)

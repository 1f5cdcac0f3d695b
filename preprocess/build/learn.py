"""The tokenizer that a training split asks for: words and characters by exact counts of all text, byte-level BPE by those of a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packlm import config
from packlm.config import Config, Corpus
from packlm.dataset import SPLITS
from packlm.text import pretokens, sentences, tokenizer, tokenizers
from packlm.text.encoder import Encoder
from packlm.text.tokenizers.bpe import in_sample

from . import plan, vocabulary
from .task_output import ArrowTask

_TASK_BYTES = 1 << 26  # text a task counts: what is distinct in it fits in memory


@dataclass(frozen=True)
class CountTask(ArrowTask):
    """Some documents of the training split, whose words or characters (for bpe: chunks) are to be counted."""

    task: plan.ShardPlan
    share: float
    """The share of the documents that count; chosen by a hash of their names."""
    corpus: Corpus
    tokenizer: config.Tokenizer
    folder: Path

    @property
    def name(self) -> str:
        return f"counts-{self.task.name}"

    @property
    def size(self) -> int:
        return self.task.size


def count(job: CountTask) -> None:
    """Counts; then writes `job.done`."""
    counter = vocabulary.Counter(job.tokenizer)
    normalized = tokenizers.KINDS[job.tokenizer.kind].normalizer(job.tokenizer) is not None
    for texts, pieces in plan.read(job.task):
        if pieces is None:
            pieces = sentences.piece_starts(texts, job.corpus.sentences, job.corpus.language)
        found = sentences.spans(texts, pieces)
        chosen = in_sample(texts.names, job.share)[found.documents]
        for values, counts in pretokens.counts(texts.data, found.starts[chosen], found.ends[chosen], normalized, texts.edges):
            counter.add(values, counts)
    counter.write(job.path)
    job.finish({})


def spelled_eos(settings: config.Tokenizer, ready: str | None) -> str:
    """`Encoder.spelled_eos` of a ready tokenizer, or of one to be trained (`ready` is None), whatever it will learn."""
    text = tokenizers.KINDS[settings.kind].train(settings, [], 0).to_str() if ready is None else ready
    return Encoder(tokenizer.parse(text, str(settings.file)), "").spelled_eos


def learn(settings: Config, found: Sequence[plan.ExtractedFile], folder: Path, run: Callable[[Sequence[CountTask]], None]) -> str:
    """The JSON of the tokenizer that the training split and the settings, which name no ready one, give.

    Args:
        found: the collected text.
        folder: where counts are kept.
        run: runs the counting of those jobs that are not done.
    """
    chosen = settings.tokenizer
    kind = tokenizers.KINDS[chosen.kind]
    size = sum(int(item.bytes[:, SPLITS.index("train")].sum()) for item in found)
    share = chosen.sample_bytes / max(size, 1) if kind.sampled else 1.0
    training = [task for task in plan.tasks(found, -(-size // _TASK_BYTES)) if task.split == "train"]
    jobs = [CountTask(task, share, settings.corpus, chosen, folder) for task in training]
    run(jobs)
    counted = vocabulary.merge([job.path for job in jobs], kind.num_entries(chosen), chosen.min_count)
    return kind.train(chosen, counted.entries, counted.tokens).to_str(pretty=True)

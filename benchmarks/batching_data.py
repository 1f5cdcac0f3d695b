"""Training data of the compared batching methods: groups of sentences or fixed rows with about the same number of tokens each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from batching_methods import Group, Method

from packlm import dataset
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from train.batches.row_plan import RowPlan
from train.batches.sentence_plan import SentencePlan


@dataclass(frozen=True)
class Data:
    """A recipe's dataset and the number of tokens per step."""

    sentences: Sentences
    stream: Stream
    validation: Sentences
    budget: int
    """Tokens per step."""
    seed: int

    @staticmethod
    def open(config: Config, manifest: dataset.Manifest, validation_tokens: int) -> "Data":
        """Opens both views of a recipe's dataset, and the first `validation_tokens` of its validation sentences.

        A step has as many tokens as a step of the recipe, or more if the longest sentence or a row would not fit.
        """
        settings, folder = config.train, config.dataset.dir
        sentences, stream = Sentences.open(folder, manifest, "train"), Stream.open(folder, manifest, "train")
        stream.opens = stream.opens[:0]  # no cuts at document boundaries: all rows are equally long
        tokens = settings.streams * settings.window if settings.segments == "streams" else settings.global_batch_tokens
        budget = max(tokens, int(sentences.lengths.max()), manifest.length)
        validation = first_sentences(Sentences.open(folder, manifest, "validation"), validation_tokens)
        return Data(sentences, stream, validation, budget, config.run.seed)

    def groups(self, method: Method) -> Iterator[Group]:
        """Yields the groups of a method step by step, over endless epochs."""
        plan: SentencePlan | RowPlan | EqualLengths
        if method.batches == "close":
            plan = SentencePlan(self.sentences, self.budget, self.seed)
        elif method.batches == "equal":
            plan = EqualLengths(self.sentences, self.budget, self.seed)
        else:
            plan = RowPlan(self.stream, int(self.stream.rows(np.zeros(1, int))[1][0]), self.budget, self.seed)
        for epoch in count():
            for step in range(plan.steps(epoch)):
                share = plan.share(epoch, step, 0, 1)
                yield share if isinstance(share, Group) else _group(share.inputs, share.targets, share.lengths)

    def sample(self, method: Method) -> Group:
        """A few sequences to compare gradients on, the same for all methods that can run them."""
        by_length = np.argsort(self.sentences.lengths, kind="stable")
        if method.batches == "rows":
            starts, stops = self.stream.rows(np.arange(min(2, self.stream.num_rows)))
            return _group(*self.stream.read(starts, stops), stops - starts)
        if method.batches == "close":
            chosen = by_length[np.linspace(0, 0.95 * (len(by_length) - 1), 8).astype(int)]
        else:
            lengths = self.sentences.lengths
            chosen = np.flatnonzero(lengths == np.bincount(lengths).argmax())[:8]
        return _read(self.sentences, np.unique(chosen))


class EqualLengths:
    """A plan of groups of exactly one length and at most `tokens` tokens, shuffled anew for each epoch."""

    def __init__(self, sentences: Sentences, tokens: int, seed: int):
        self.sentences, self.seed = sentences, seed
        lengths, counts = np.unique(sentences.lengths, return_counts=True)
        starts = np.cumsum(counts) - counts
        cuts = [np.arange(s, s + c, max(1, tokens // m)) for s, c, m in zip(starts, counts, lengths, strict=True)]
        self._bounds = np.append(np.concatenate(cuts), len(sentences))
        self._epoch = -1

    def steps(self, epoch: int) -> int:
        """Groups per epoch."""
        return len(self._bounds) - 1

    def share(self, epoch: int, step: int, rank: int, world: int) -> Group:
        """The group of a step; there is only one rank."""
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            order = generator.permutation(len(self.sentences))
            self._order = order[np.argsort(self.sentences.lengths[order], kind="stable")]
            self._batches, self._epoch = generator.permutation(self.steps(epoch)), epoch
        batch = self._batches[step]
        return _read(self.sentences, self._order[self._bounds[batch] : self._bounds[batch + 1]])


def first_sentences(sentences: Sentences, tokens: int) -> Sentences:
    """The first sentences of at most `tokens` tokens in total, at least one; all of them if `tokens` is 0."""
    ends = np.cumsum(sentences.lengths, dtype=np.int64)
    number = max(1, int(np.searchsorted(ends, tokens, side="right"))) if tokens else len(ends)
    return Sentences.from_arrays(np.concatenate([sentences.targets(index) for index in range(number)]), ends[:number])


def _read(sentences: Sentences, indices: np.ndarray) -> Group:
    return _group(*sentences.read(indices), sentences.lengths[indices])


def _group(inputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray) -> Group:
    ends = np.cumsum(lengths)[:-1]
    return Group(np.split(inputs, ends), np.split(targets, ends))

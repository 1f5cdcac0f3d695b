"""What the compared ways of batching train on: groups of sentences or of fixed rows, about equally many tokens each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from ways import Group, Way

from packlm import dataset
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from train.batches.row_plan import RowPlan
from train.batches.sentence_plan import SentencePlan


@dataclass(frozen=True)
class Data:
    """A recipe's dataset, and how much of it makes a step."""

    sentences: Sentences
    stream: Stream
    validation: Sentences
    budget: int
    """Tokens of a step."""
    seed: int

    @staticmethod
    def open(config: Config, manifest: dataset.Manifest, validation_tokens: int) -> "Data":
        """The dataset of a recipe, whatever it trains on itself, with the first sentences of validation.

        A step has as many tokens as one of the recipe, or more if its longest sentence or its rows would not fit.
        """
        settings, folder = config.train, config.dataset.dir
        sentences, stream = Sentences.open(folder, manifest, "train"), Stream.open(folder, manifest, "train")
        stream.opens = stream.opens[:0]  # rows are cut nowhere: all are equally long, as in training on fixed lengths
        tokens = settings.streams * settings.window if settings.segments == "streams" else settings.global_batch_tokens
        budget = max(tokens, int(sentences.lengths.max()), manifest.length)
        validation = first_sentences(Sentences.open(folder, manifest, "validation"), validation_tokens)
        return Data(sentences, stream, validation, budget, config.run.seed)

    def groups(self, way: Way) -> Iterator[Group]:
        """The steps of a way, epoch after epoch without end."""
        plan: SentencePlan | RowPlan | EqualLengths
        if way.batches == "close":
            plan = SentencePlan(self.sentences, self.budget, self.seed)
        elif way.batches == "equal":
            plan = EqualLengths(self.sentences, self.budget, self.seed)
        else:
            plan = RowPlan(self.stream, int(self.stream.rows(np.zeros(1, int))[1][0]), self.budget, self.seed)
        for epoch in count():
            for step in range(plan.steps(epoch)):
                share = plan.share(epoch, step, 0, 1)
                yield share if isinstance(share, Group) else _group(share.inputs, share.targets, share.lengths)

    def sample(self, way: Way) -> Group:
        """A few sequences to compare gradients on: the same for all ways, but for those that cannot run them."""
        by_length = np.argsort(self.sentences.lengths, kind="stable")
        if way.batches == "rows":
            starts, stops = self.stream.rows(np.arange(min(2, self.stream.num_rows)))
            return _group(*self.stream.read(starts, stops), stops - starts)
        if way.batches == "close":
            chosen = by_length[np.linspace(0, 0.95 * (len(by_length) - 1), 8).astype(int)]
        else:
            lengths = self.sentences.lengths
            chosen = np.flatnonzero(lengths == np.bincount(lengths).argmax())[:8]
        return _read(self.sentences, np.unique(chosen))


class EqualLengths:
    """Groups of exactly one length, of at most `tokens`: each epoch in another order, with other sentences of a length together."""

    def __init__(self, sentences: Sentences, tokens: int, seed: int):
        self.sentences, self.seed = sentences, seed
        lengths, counts = np.unique(sentences.lengths, return_counts=True)
        starts = np.cumsum(counts) - counts
        cuts = [np.arange(s, s + c, max(1, tokens // m)) for s, c, m in zip(starts, counts, lengths, strict=True)]
        self._bounds = np.append(np.concatenate(cuts), len(sentences))
        self._epoch = -1

    def steps(self, epoch: int) -> int:
        """Groups in an epoch."""
        return len(self._bounds) - 1

    def share(self, epoch: int, step: int, rank: int, world: int) -> Group:
        """A step, which is not shared: one process does all."""
        if epoch != self._epoch:
            drawn = np.random.default_rng([self.seed, epoch])
            order = drawn.permutation(len(self.sentences))
            self._order = order[np.argsort(self.sentences.lengths[order], kind="stable")]
            self._batches, self._epoch = drawn.permutation(self.steps(epoch)), epoch
        batch = self._batches[step]
        return _read(self.sentences, self._order[self._bounds[batch] : self._bounds[batch + 1]])


def first_sentences(sentences: Sentences, tokens: int) -> Sentences:
    """The first sentences with at most so many tokens, or the first one alone; all if `tokens` is 0."""
    ends = np.cumsum(sentences.lengths, dtype=np.int64)
    number = max(1, int(np.searchsorted(ends, tokens, side="right"))) if tokens else len(ends)
    return Sentences.from_arrays(np.concatenate([sentences.targets(index) for index in range(number)]), ends[:number])


def _read(sentences: Sentences, indices: np.ndarray) -> Group:
    return _group(*sentences.read(indices), sentences.lengths[indices])


def _group(inputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray) -> Group:
    ends = np.cumsum(lengths)[:-1]
    return Group(np.split(inputs, ends), np.split(targets, ends))

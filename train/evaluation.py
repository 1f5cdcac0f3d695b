"""The negative log-likelihood of a split: every target once, summed in float64, whatever the batch or the number of ranks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import PacklmError, Stopped
from train import carry
from train.batches import Segments
from train.distributed import Ranks
from train.model import LanguageModel
from train.plans import StreamPlan
from train.views import Sentences, Stream

DOCUMENT_STREAMS = 32
"""Documents measured side by side; the numbers do not depend on it."""


@dataclass(frozen=True)
class Result:
    """Summed negative log-likelihood (nats) over N tokens, `<eos>` included."""

    nll: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf


def chosen_context(asked: str, trained: str) -> str:
    """What precedes a prediction in a measurement: `evaluate.context`, or what the model was trained with where that is auto."""
    return trained if asked == "auto" else asked


def evaluate(
    model: LanguageModel, sentences: Sentences, stream: Stream, context: str, streams: int, batch_tokens: int, ranks: Ranks,
    parts: int | None = None, stopping: Callable[[], bool] = lambda: False,
) -> Result:  # fmt: skip
    """All ranks: measures a split.

    Args:
        sentences, stream: the two views of the split.
        context: what precedes a prediction: sentences (its own alone), documents, or streams (`streams` of them, nothing reset).
        batch_tokens: tokens run at a time.
        parts: into how many parts a split in streams is divided, whatever the number of ranks (which divides it); one a rank unless given.
        stopping: whether to give up; asked between batches.

    Raises:
        PacklmError: a score is infinite or NaN, or not every token was scored once.
        Stopped: a rank was `stopping`.
    """
    expected = sentences.tokens if context == "sentences" else len(stream)
    if context == "sentences":
        scores = _sentence_scores(model, sentences, batch_tokens, ranks, stopping)
    else:
        if context == "documents":
            lanes = min(DOCUMENT_STREAMS, max(1, len(stream.opens)))
            plan = StreamPlan.documents(stream, lanes, max(1, batch_tokens // lanes))
        else:
            plan = StreamPlan.even(stream, streams, max(1, batch_tokens // streams), reset=False)
        scores = _stream_scores(model, plan, ranks, parts or ranks.world, stopping)
    ranks.barrier()  # which waits as long as it takes; the shares may be very unequal
    scores = ranks.sum(np.append(scores, [[0, float(stopping())]], axis=0))
    if scores[-1, 1]:
        raise Stopped("stopped in a validation; the same command goes on")
    nll, tokens = sum(scores[:-1, 0].tolist()), int(scores[:-1, 1].sum())
    if tokens != expected:
        raise PacklmError(f"{tokens:,} tokens were scored of {expected:,}; the dataset is damaged: `python -m preprocess verify`")
    if not math.isfinite(nll):
        raise PacklmError(f"the split's score is {nll}: the model gives some token no probability; its weights are unusable")
    return Result(nll, tokens)


@dataclass(frozen=True)
class Validation:
    """A split that is measured again and again: the arguments of `evaluate`."""

    sentences: Sentences
    stream: Stream
    context: str
    streams: int
    batch_tokens: int

    def measure(self, model: LanguageModel, ranks: Ranks, parts: int, stopping: Callable[[], bool]) -> Result:
        """All ranks: measures the split."""
        view = (self.sentences, self.stream, self.context, self.streams, self.batch_tokens)
        return evaluate(model, *view, ranks, parts, stopping)


def sentence_losses(model: LanguageModel, sentences: Sentences, batch_tokens: int, pool: int = 4096) -> Iterator[tuple[int, np.ndarray]]:
    """The loss of each token of each sentence, from a zero state: yields (sentence, [M] nats in float64), in order.

    `pool` sentences at a time are sorted by length and run in batches of about `batch_tokens`.
    """
    for first in range(0, len(sentences), pool):
        indices = np.arange(first, min(first + pool, len(sentences)))
        found: dict[int, np.ndarray] = {}
        for batch in _by_length(sentences, indices, batch_tokens):
            losses = _sentence_batch(model, sentences, batch)
            found.update(zip(batch.tolist(), np.split(losses, np.cumsum(sentences.lengths[batch])[:-1]), strict=True))
        yield from ((int(index), found[int(index)]) for index in indices)


def _by_length(sentences: Sentences, indices: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    order = indices[np.argsort(sentences.lengths[indices], kind="stable")]
    ends = np.cumsum(sentences.lengths[order], dtype=np.int64)
    return np.split(order, np.flatnonzero(np.diff((ends - 1) // batch_tokens)) + 1) if len(order) else []


def _sentence_scores(
    model: LanguageModel, sentences: Sentences, batch_tokens: int, ranks: Ranks, stopping: Callable[[], bool]
) -> np.ndarray:  # fmt: skip
    """[batches, 2] summed loss and tokens of each batch; zero for those of other ranks, so that their sum has no order to depend on."""
    batches = _by_length(sentences, np.arange(len(sentences)), batch_tokens)
    scores = np.zeros((len(batches), 2))
    for number in range(ranks.rank, len(batches), ranks.world):
        if stopping():
            break
        scores[number] = _score(_sentence_batch(model, sentences, batches[number]))
    return scores


def _sentence_batch(model: LanguageModel, sentences: Sentences, indices: np.ndarray) -> np.ndarray:
    """[P] nats in float64 of the tokens of the sentences, end to end."""
    segments = Segments(*sentences.read(indices), sentences.lengths[indices].astype(np.int64), indices)
    losses, _ = model.losses(segments.batch(_device(model)))
    return losses.double().cpu().numpy()


def _stream_scores(model: LanguageModel, plan: StreamPlan, ranks: Ranks, parts: int, stopping: Callable[[], bool]) -> np.ndarray:
    """[parts, 2] summed loss and tokens of each part; zero for those of other ranks."""
    scores, each = np.zeros((parts, 2)), parts // ranks.world
    for part in range(ranks.rank * each, (ranks.rank + 1) * each):
        carried = model.recurrence.zero_state(len(plan.streams_of(part, parts)))
        for step in range(plan.steps(0)):
            segments = plan.share(0, step, part, parts)
            if not len(segments.targets) or stopping():
                break
            losses, final = model.losses(segments.batch(_device(model)), carry.start(model.recurrence, carried, segments))
            assert final is not None
            carried = carry.after(carried, final, segments)
            scores[part] += _score(losses.double().cpu().numpy())
    return scores


def _score(losses: np.ndarray) -> tuple[float, int]:
    return float(losses.sum()), len(losses)


def _device(model: LanguageModel) -> torch.device:
    return model.embedding.weight.device

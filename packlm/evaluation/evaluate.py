"""The negative log-likelihood of a split: every target once, summed in float64, whatever the batch or the number of ranks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from packlm.base.errors import PacklmError, Stopped
from packlm.batches import carried_state
from packlm.batches.segments import Segments
from packlm.batches.stream_plan import StreamPlan
from packlm.dataset.views import Array, Sentences, Stream
from packlm.distributed import Ranks
from packlm.model.finite import CAUSE, NotFinite, perplexity
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from packlm.model.softmax.loss import RowScores

DOCUMENT_STREAMS = 32
"""Streams that documents are evaluated in, in parallel; the numbers do not depend on it."""


@dataclass(frozen=True)
class Result:
    """Summed negative log-likelihood (nats) over N tokens, `<eos>` included."""

    nll: float
    tokens: int

    @property
    def loss(self) -> float:
        """Mean, in nats per token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


class LossScorer(Protocol):
    """Gives the targets of segments a loss. Whatever it carries from one segment of a stream to the next is in its state."""

    max_window: int | None
    """Most time steps of a segment; None: no limit."""

    def zero_state(self, segments: int) -> State:
        """The state that segments start from: tensors with the segments in their second dimension."""
        ...

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        """The loss of each target, [P] in nats, and the final state of each segment (None if none is carried).

        `segments.keys` are the offsets in the split of their first targets.
        """
        ...


class Scorer(LossScorer, Protocol):
    """Gives the targets of segments more than a loss."""

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        scores, state = self.scores(segments, state)
        return scores.losses, state

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        """As `losses`, with entropy and rank of each target."""
        ...


class ModelScorer(Scorer):
    """The model without adaptation."""

    max_window: int | None = None

    def __init__(self, model: LanguageModel):
        self.model, self.device = model, model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        return self.model.zero_state(segments)

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        return self.model.losses(segments.batch(self.device), state)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        return self.model.scores(segments.batch(self.device), state)


def resolve_context(setting: str, trained: str) -> str:
    """The value of `evaluate.context`; for auto the context that the model was trained with."""
    return trained if setting == "auto" else setting


def evaluate(
    scorer: LossScorer, sentences: Sentences, stream: Stream, context: str, streams: int, batch_tokens: int, ranks: Ranks,
    parts: int | None = None, stopping: Callable[[], bool] = lambda: False,
) -> Result:  # fmt: skip
    """All ranks: evaluates a split.

    Args:
        scorer: `ModelScorer(model)`, or the model with an adaptation.
        sentences, stream: the two views of the split.
        context: what precedes a prediction: its sentence (sentences), its document (documents), or its stream (streams; never reset).
        streams: number of streams, with context streams.
        batch_tokens: tokens per batch, whatever the length of a sentence or document.
        parts: number of parts that streams are divided into, a multiple of the number of ranks; by default one per rank.
        stopping: whether to stop; called between batches.

    Raises:
        NotFinite: a score is infinite or NaN, or has no finite perplexity.
        PacklmError: not every token was scored once.
        Stopped: `stopping` returned true on a rank.
    """
    expected = sentences.tokens if context == "sentences" else len(stream)
    if context == "sentences":
        scores = _sentence_scores(scorer, sentences, batch_tokens, ranks, stopping)
    else:
        if context == "documents":
            streams = 1 if scorer.max_window else min(DOCUMENT_STREAMS, max(1, len(stream.opens)))
            plan = StreamPlan.documents(stream, streams, scorer.max_window or max(1, batch_tokens // streams))
        else:
            plan = StreamPlan.even(stream, streams, scorer.max_window or max(1, batch_tokens // streams), reset=False)
        scores = _stream_scores(scorer, plan, ranks, parts or ranks.world, stopping)
    ranks.barrier()  # waits without a timeout: the shares may be very unequal
    scores = ranks.sum(np.append(scores, [[0, float(stopping())]], axis=0))
    if scores[-1, 1]:
        raise Stopped("stopped during validation; resume by running the same command again")
    nll, tokens = sum(scores[:-1, 0].tolist()), int(scores[:-1, 1].sum())
    if tokens != expected:
        raise PacklmError(f"{tokens:,} of {expected:,} tokens were scored; the dataset is damaged: run `packlm preprocess verify`")
    if not math.isfinite(nll):
        raise NotFinite(f"the split's score is {nll}: some token has probability 0; {CAUSE}")
    perplexity(nll / tokens)
    return Result(nll, tokens)


@dataclass(frozen=True)
class Validation:
    """The validation split, and how it is evaluated: arguments of `evaluate`."""

    sentences: Sentences
    stream: Stream
    context: str
    streams: int
    batch_tokens: int

    def measure(self, model: LanguageModel, ranks: Ranks, parts: int, stopping: Callable[[], bool]) -> Result:
        """All ranks: evaluates the split."""
        view = (self.sentences, self.stream, self.context, self.streams, self.batch_tokens)
        return evaluate(ModelScorer(model), *view, ranks, parts, stopping)


def length_batches(lengths: Array, indices: Array, batch_tokens: int) -> list[Array]:
    """Batches of about `batch_tokens` of the segments `indices`, shortest first; a longer one is a batch of its own."""
    order = indices[np.argsort(lengths[indices], kind="stable")]
    ends = np.cumsum(lengths[order], dtype=np.int64)
    return np.split(order, np.flatnonzero(np.diff((ends - 1) // batch_tokens)) + 1) if len(order) else []


def sentence_segments(
    sentences: Sentences, offsets: Array, batch: Array, batch_tokens: int, return_state: bool = False
) -> Iterator[Segments]:  # fmt: skip
    """A batch of sentences as segments: whole, or, for a single one of more than `batch_tokens`, in consecutive pieces.

    Args:
        offsets: [S] offset in the split of each sentence's first target.
        return_state: whether to return final states even if there is only one piece.
    """
    longest = int(sentences.lengths[batch].max())
    carried = np.arange(len(batch)) if return_state or longest > batch_tokens else np.zeros(0, np.int64)
    for begin in range(0, longest, batch_tokens if len(batch) == 1 else longest):
        lengths = sentences.lengths[batch].astype(np.int64) - begin
        if len(batch) == 1:
            lengths = np.minimum(lengths, batch_tokens)
        starts = np.full(len(batch), begin)
        ids = sentences.pieces(batch, starts, lengths)
        yield Segments(*ids, lengths, offsets[batch] + begin, initial_streams=carried, final_segments=carried)


def first_targets(sentences: Sentences) -> Array:
    """[S] offset in the split of each sentence's first target."""
    return np.cumsum(sentences.lengths, dtype=np.int64) - sentences.lengths


def _sentence_scores(
    scorer: LossScorer, sentences: Sentences, batch_tokens: int, ranks: Ranks, stopping: Callable[[], bool]
) -> np.ndarray:  # fmt: skip
    """[batches, 2] summed loss and tokens of each batch; zero for those of other ranks, so that the sum over ranks has one order."""
    batches, offsets = length_batches(sentences.lengths, np.arange(len(sentences)), batch_tokens), first_targets(sentences)
    scores = np.zeros((len(batches), 2))
    for index in range(ranks.rank, len(batches), ranks.world):
        state: State | None = None
        for segments in sentence_segments(sentences, offsets, batches[index], batch_tokens):
            if stopping():
                return scores
            losses, state = scorer.losses(segments, state)
            scores[index] += _score(losses)
    return scores


def _stream_scores(scorer: LossScorer, plan: StreamPlan, ranks: Ranks, parts: int, stopping: Callable[[], bool]) -> np.ndarray:
    """[parts, 2] summed loss and tokens of each part; zero for those of other ranks."""
    scores, each = np.zeros((parts, 2)), parts // ranks.world
    for part in range(ranks.rank * each, (ranks.rank + 1) * each):
        carried = scorer.zero_state(len(plan.streams_of(part, parts)))
        for step in range(plan.steps(0)):
            segments = plan.share(0, step, part, parts)
            if not len(segments.targets) or stopping():
                break
            losses, final = scorer.losses(segments, carried_state.initial_state(scorer.zero_state(1), carried, segments))
            assert final is not None
            carried = carried_state.next_state(carried, final, segments)
            scores[part] += _score(losses)
    return scores


def _score(losses: Tensor) -> tuple[float, int]:
    return float(losses.double().cpu().numpy().sum()), len(losses)

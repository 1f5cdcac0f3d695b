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
from packlm.model.language_model import LanguageModel
from packlm.model.loss import RowScores
from packlm.model.recurrence import State

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


class Scorer(Protocol):
    """Gives losses to the targets of segments. What it carries from one segment to the next is its state."""

    longest: int | None
    """Most time steps it takes at once; None for any number."""

    def zero_state(self, segments: int) -> State:
        """What segments start from: tensors [..., segments, ...] with the segments second."""
        ...

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        """The loss of each target, [P] in nats, and what each segment leaves where it carries on.

        `segments.keys` are the places in the split of their first targets.
        """
        scores, state = self.scores(segments, state)
        return scores.losses, state

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        """What there is to know of each target besides; otherwise as `losses`."""
        ...


class ModelScorer(Scorer):
    """The model by itself."""

    longest: int | None = None

    def __init__(self, model: LanguageModel):
        self.model, self.device = model, model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        return self.model.recurrence.zero_state(segments)

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        return self.model.losses(segments.batch(self.device), state)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        return self.model.scores(segments.batch(self.device), state)


def resolve_context(asked: str, trained: str) -> str:
    """What precedes a prediction in a measurement: `evaluate.context`, or what the model was trained with where that is auto."""
    return trained if asked == "auto" else asked


def evaluate(
    scorer: Scorer, sentences: Sentences, stream: Stream, context: str, streams: int, batch_tokens: int, ranks: Ranks,
    parts: int | None = None, stopping: Callable[[], bool] = lambda: False,
) -> Result:  # fmt: skip
    """All ranks: measures a split.

    Args:
        scorer: what gives the losses: `ModelScorer(model)`, or the model with something added.
        sentences, stream: the two views of the split.
        context: what precedes a prediction: sentences (its own alone), documents, or streams (`streams` of them, nothing reset).
        batch_tokens: tokens run at a time, whatever the length of a sentence or document.
        parts: into how many parts a split in streams is divided, whatever the number of ranks (which divides it); one a rank unless given.
        stopping: whether to give up; asked between batches.

    Raises:
        PacklmError: a score is infinite or NaN, or not every token was scored once.
        Stopped: a rank was `stopping`.
    """
    expected = sentences.tokens if context == "sentences" else len(stream)
    if context == "sentences":
        scores = _sentence_scores(scorer, sentences, batch_tokens, ranks, stopping)
    else:
        if context == "documents":
            lanes = 1 if scorer.longest else min(DOCUMENT_STREAMS, max(1, len(stream.opens)))
            plan = StreamPlan.documents(stream, lanes, scorer.longest or max(1, batch_tokens // lanes))
        else:
            plan = StreamPlan.even(stream, streams, scorer.longest or max(1, batch_tokens // streams), reset=False)
        scores = _stream_scores(scorer, plan, ranks, parts or ranks.world, stopping)
    ranks.barrier()  # which waits as long as it takes; the shares may be very unequal
    scores = ranks.sum(np.append(scores, [[0, float(stopping())]], axis=0))
    if scores[-1, 1]:
        raise Stopped("stopped in a validation; the same command goes on")
    nll, tokens = sum(scores[:-1, 0].tolist()), int(scores[:-1, 1].sum())
    if tokens != expected:
        raise PacklmError(f"{tokens:,} tokens were scored of {expected:,}; the dataset is damaged: `python -m preprocess verify`")
    if not math.isfinite(nll):
        raise PacklmError(
            f"the split's score is {nll}: the model gives some token no probability; its weights are unusable, or dynamic_lr is too high"
        )
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
        return evaluate(ModelScorer(model), *view, ranks, parts, stopping)


def length_batches(lengths: Array, indices: Array, batch_tokens: int) -> list[Array]:
    """Batches of about `batch_tokens` of the segments `indices`, shortest first; one of more tokens is a batch by itself."""
    order = indices[np.argsort(lengths[indices], kind="stable")]
    ends = np.cumsum(lengths[order], dtype=np.int64)
    return np.split(order, np.flatnonzero(np.diff((ends - 1) // batch_tokens)) + 1) if len(order) else []


def sentence_segments(sentences: Sentences, places: Array, batch: Array, batch_tokens: int, carry_on: bool = False) -> Iterator[Segments]:
    """A batch of sentences as segments: whole, or, where it is one of more than `batch_tokens`, piece after piece.

    Args:
        places: [S] the place in the split of each sentence's first target.
        carry_on: whether to carry states even if one piece is all.
    """
    longest = int(sentences.lengths[batch].max())
    carried = np.arange(len(batch)) if carry_on or longest > batch_tokens else np.zeros(0, np.int64)
    for begin in range(0, longest, batch_tokens if len(batch) == 1 else longest):
        lengths = sentences.lengths[batch].astype(np.int64) - begin
        if len(batch) == 1:
            lengths = np.minimum(lengths, batch_tokens)
        starts = np.full(len(batch), begin)
        ids = sentences.pieces(batch, starts, lengths)
        yield Segments(*ids, lengths, places[batch] + begin, initial_streams=carried, final_segments=carried)


def first_targets(sentences: Sentences) -> Array:
    """[S] the place in the split of each sentence's first target."""
    return np.cumsum(sentences.lengths, dtype=np.int64) - sentences.lengths


def _sentence_scores(
    scorer: Scorer, sentences: Sentences, batch_tokens: int, ranks: Ranks, stopping: Callable[[], bool]
) -> np.ndarray:  # fmt: skip
    """[batches, 2] summed loss and tokens of each batch; zero for those of other ranks, so that their sum has no order to depend on."""
    batches, places = length_batches(sentences.lengths, np.arange(len(sentences)), batch_tokens), first_targets(sentences)
    scores = np.zeros((len(batches), 2))
    for number in range(ranks.rank, len(batches), ranks.world):
        state: State | None = None
        for segments in sentence_segments(sentences, places, batches[number], batch_tokens):
            if stopping():
                return scores
            losses, state = scorer.losses(segments, state)
            scores[number] += _score(losses)
    return scores


def _stream_scores(scorer: Scorer, plan: StreamPlan, ranks: Ranks, parts: int, stopping: Callable[[], bool]) -> np.ndarray:
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

"""The negative log-likelihood of a split: every target once, summed in float64, whatever the batch or the number of ranks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import PacklmError
from train import carry
from train.batches import Segments, StreamPlan
from train.distributed import Ranks
from train.model import LanguageModel
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
    model: LanguageModel, sentences: Sentences, stream: Stream, context: str, streams: int, batch_tokens: int, ranks: Ranks
) -> Result:  # fmt: skip
    """All ranks: measures a split.

    Args:
        sentences, stream: the two views of the split.
        context: what precedes a prediction: sentences (its own alone), documents, or streams (`streams` of them, nothing reset).
        batch_tokens: tokens run at a time.

    Raises:
        PacklmError: a score is infinite or NaN, or not every token was scored once.
    """
    expected = sentences.tokens if context == "sentences" else len(stream)
    if context == "sentences":
        batches = _sentence_nlls(model, sentences, batch_tokens, ranks)
    elif context == "documents":
        lanes = min(DOCUMENT_STREAMS, max(1, len(stream.opens)))
        batches = _stream_nlls(model, StreamPlan.documents(stream, lanes, max(1, batch_tokens // lanes)), ranks)
    else:
        batches = _stream_nlls(model, StreamPlan.even(stream, streams, max(1, batch_tokens // streams), reset=False), ranks)
    nll, tokens = np.zeros(2)
    for losses in batches:
        nll, tokens = nll + losses.sum(), tokens + len(losses)
    nll, tokens = ranks.sum(np.array([nll, tokens]))
    if int(tokens) != expected:
        raise PacklmError(f"{int(tokens):,} tokens were scored of {expected:,}; the dataset is damaged: `python -m preprocess verify`")
    if not math.isfinite(nll):
        raise PacklmError(f"the split's score is {nll}: the model gives some token no probability; its weights are unusable")
    return Result(float(nll), int(tokens))


@dataclass(frozen=True)
class Validation:
    """A split that is measured again and again: the arguments of `evaluate`."""

    sentences: Sentences
    stream: Stream
    context: str
    streams: int
    batch_tokens: int

    def measure(self, model: LanguageModel, ranks: Ranks) -> Result:
        """All ranks: measures the split."""
        return evaluate(model, self.sentences, self.stream, self.context, self.streams, self.batch_tokens, ranks)


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


def _sentence_nlls(model: LanguageModel, sentences: Sentences, batch_tokens: int, ranks: Ranks) -> Iterator[np.ndarray]:
    batches = _by_length(sentences, np.arange(len(sentences)), batch_tokens)
    for batch in batches[ranks.rank :: ranks.world]:
        yield _sentence_batch(model, sentences, batch)


def _sentence_batch(model: LanguageModel, sentences: Sentences, indices: np.ndarray) -> np.ndarray:
    """[P] nats in float64 of the tokens of the sentences, end to end."""
    inputs, targets = (list(parts) for parts in zip(*(sentences.read(index) for index in indices.tolist()), strict=True))
    losses, _ = model.losses(Segments(inputs, targets, [], 0, 0).batch(_device(model)))
    return losses.double().cpu().numpy()


def _stream_nlls(model: LanguageModel, plan: StreamPlan, ranks: Ranks) -> Iterator[np.ndarray]:
    carried = model.recurrence.zero_state(len(plan.mine(ranks.rank, ranks.world)))
    for step in range(plan.num_steps):
        segments = plan.share(0, step, ranks.rank, ranks.world)
        if segments.targets:
            batch = segments.batch(_device(model))
            losses, final = model.losses(batch, carry.start(model.recurrence, carried, segments))
            assert final is not None
            carried = carry.after(carried, final, segments)
            yield losses.double().cpu().numpy()


def _device(model: LanguageModel) -> torch.device:
    return model.embedding.weight.device

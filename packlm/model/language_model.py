"""The language model: embedding, a stack of recurrent layers, softmax.

Shapes: B segments, P tokens of all segments end to end, V vocabulary, D width into the softmax.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlm import config
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.recurrence import Layout, RecurrentLayers, State
from packlm.model.regularization import activation, dropout, temporal_activation
from packlm.model.softmax import loss
from packlm.model.softmax.adaptive import AdaptiveSoftmax
from packlm.model.softmax.full import Softmax


@dataclass(frozen=True)
class Batch:
    """Segments and their targets: one part of a global batch, on the device."""

    inputs: Tensor
    """[P] ids read, in segment order."""
    targets: Tensor
    """[P] ids predicted."""
    lengths: np.ndarray
    """[B] tokens of each segment."""
    dropout_hashes: DropoutHashes | None
    """The hashes that decide what is dropped; nothing is dropped without them."""
    return_state: bool
    """Whether to return the final states."""


class BatchSums(NamedTuple):
    """Sums over the tokens of a batch, float64 scalars."""

    nll: Tensor
    """Negative log-likelihood of the targets, in nats."""
    activation: Tensor
    """AR: mean square of the inputs of the softmax (`regularization.activation`)."""
    temporal_activation: Tensor
    """TAR: mean square of the change from one time step to the next (`regularization.temporal_activation`)."""


class LanguageModel(nn.Module):
    """P(next token | the tokens before it in its segment, and the state the segment started from)."""

    def __init__(
        self, settings: config.Model, vocab_size: int, layout: Layout = "auto", logits_bytes: int = loss.DEFAULT_BYTES
    ):  # fmt: skip
        """`layout`: how batches run (`recurrence`); `logits_bytes`: memory for logits (`loss`)."""
        super().__init__()
        self.settings, self.vocab_size, self.layout, self.logits_bytes = settings, vocab_size, layout, logits_bytes
        self.embedding = nn.Embedding(vocab_size, settings.embedding_width)
        self.recurrence = RecurrentLayers(settings)
        width = settings.widths[-1]
        self.projection = AdaptiveSoftmax(width, vocab_size, settings.cutoffs) if settings.cutoffs else Softmax(width, vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.projection.initialize()
        if settings.tied:
            self.projection.weight = self.embedding.weight

    def zero_state(self, segments: int) -> State:
        """The state before anything was read: for each layer [C, segments, S] zeros."""
        return self.recurrence.zero_state(segments)

    def hidden(
        self, ids: Tensor, lengths: np.ndarray, state: State | None = None, return_state: bool = True,
        dropout_hashes: DropoutHashes | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """Reads segments: ids [P], lengths [B] -> the last layer's rows [P, D], final state of each segment."""
        return self.recurrence(self.embedding, ids, lengths, state, self.layout, return_state, dropout_hashes)

    def forward(self, batch: Batch, state: State | None = None, penalties: bool = False) -> tuple[BatchSums, State | None]:
        """The terms of the training loss, and the final state of each segment; AR and TAR are 0 unless `penalties`."""
        raw, state = self.hidden(batch.inputs, batch.lengths, state, batch.return_state, batch.dropout_hashes)
        rows = raw
        if batch.dropout_hashes is not None:
            rows = dropout(raw, batch.dropout_hashes.rows, self.settings.layers, self.settings.dropout_before(self.settings.layers))
        nll = self.projection.summed_loss(rows, batch.targets, self.logits_bytes)
        if not penalties:
            return BatchSums(nll, nll.new_zeros(()), nll.new_zeros(())), state
        return BatchSums(nll, activation(rows), temporal_activation(raw, batch.lengths)), state

    @torch.no_grad()
    def layers(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[list[Tensor], State]:
        """Reads segments: ids [P], lengths [B] -> the embeddings and the outputs of each layer, [P, I] and [P, H], and the final states.

        A layer's output is what the next one reads, its residual connection included.
        """
        layers: list[Tensor] = []
        rows, final = self.recurrence(self.embedding, ids, lengths, state, self.layout, True, layers=layers)
        return [*layers, rows], final

    @torch.inference_mode()
    def losses(self, batch: Batch, state: State | None = None) -> tuple[Tensor, State | None]:
        """The negative log-likelihood of each target, [P] in nats, and the final state of each segment."""
        rows, state = self.hidden(batch.inputs, batch.lengths, state, batch.return_state)
        return self.projection.row_losses(rows, batch.targets, self.logits_bytes), state

    @torch.inference_mode()
    def scores(self, batch: Batch, state: State | None = None, marked: Tensor | None = None) -> tuple[loss.RowScores, State | None]:
        """Loss, entropy and rank of each target (`loss.RowScores`), and the final states; `marked`: [V] bool."""
        rows, state = self.hidden(batch.inputs, batch.lengths, state, batch.return_state)
        return self.projection.row_scores(rows, batch.targets, self.logits_bytes, marked), state

    @torch.inference_mode()
    def read(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[Tensor, State]:
        """Reads segments: log P(next id) after each, [B, V] in nats, and the final states."""
        rows, final = self.hidden(ids, lengths, state)
        assert final is not None
        last = torch.from_numpy(np.cumsum(lengths) - 1).to(rows.device)
        return F.log_softmax(self.projection(rows.index_select(0, last)), dim=-1), final

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads one id of each segment: ids [B] -> log P(next id), [B, V] in nats, and the states after it."""
        return self.read(ids, np.ones(len(ids), np.int64), state)


class InferenceModel(LanguageModel):
    """A model that is made of another one, for inference only."""

    def __init__(self, model: LanguageModel, layout: Layout):
        nn.Module.__init__(self)
        self.settings, self.vocab_size, self.layout, self.logits_bytes = model.settings, model.vocab_size, layout, model.logits_bytes

    @torch.inference_mode()
    def losses(self, batch: Batch, state: State | None = None) -> tuple[Tensor, State | None]:
        scores, final = self.scores(batch, state)
        return scores.losses, final


def build(
    settings: config.Model, vocab_size: int, seed: int, layout: Layout = "auto", logits_bytes: int = loss.DEFAULT_BYTES
) -> LanguageModel:  # fmt: skip
    """A model with initial weights that depend on the seed alone. Arguments as of `LanguageModel`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(settings, vocab_size, layout, logits_bytes)

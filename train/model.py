"""The language model: word vectors, a stack of recurrent layers, a softmax.

Shapes: B segments, P tokens of all segments end to end, V vocabulary, D width into the softmax.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline import config
from train.recurrence import Layout, Recurrence, State


@dataclass(frozen=True)
class Batch:
    """Segments to read and the tokens to predict: one rank's share of a global batch."""

    inputs: Tensor
    """[P] ids read, segment after segment."""
    targets: Tensor
    """[P] ids predicted."""
    lengths: np.ndarray
    """[B] tokens of each segment."""
    noise: Tensor | None
    """[P] int32 hashes for dropout (`noise.row_noise`)."""
    carry: bool
    """Whether final states are wanted."""


class LanguageModel(nn.Module):
    """P(next token | the tokens before it in its segment, and the state the segment started from)."""

    def __init__(self, settings: config.Model, vocab_size: int, layout: Layout = "rectangle"):
        super().__init__()
        self.settings, self.vocab_size, self.layout = settings, vocab_size, layout
        self.embedding = nn.Embedding(vocab_size, settings.embedding_width)
        self.recurrence = Recurrence(settings.cell, settings.embedding_width, settings.widths)
        self.projection = nn.Linear(settings.widths[-1], vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.projection.weight, -0.1, 0.1)
        nn.init.zeros_(self.projection.bias)
        if settings.tied:
            self.projection.weight = self.embedding.weight

    def hidden(
        self, ids: Tensor, lengths: np.ndarray, state: State | None = None, carry: bool = True, noise: Tensor | None = None
    ) -> tuple[Tensor, State | None]:
        """Reads segments: ids [P], lengths [B] -> rows [P, D] that predict the ids after them, final state of each segment."""
        dropout = self.settings.dropout if noise is not None else 0.0
        return self.recurrence(self.embedding, ids, lengths, state, self.layout, carry, dropout, noise)

    def forward(self, batch: Batch, state: State | None = None) -> tuple[Tensor, State | None]:
        """The summed negative log-likelihood of the targets (nats, a scalar), and the final state of each segment."""
        rows, state = self.hidden(batch.inputs, batch.lengths, state, batch.carry, batch.noise)
        return F.cross_entropy(self.projection(rows), batch.targets, reduction="sum"), state

    @torch.inference_mode()
    def losses(self, batch: Batch, state: State | None = None) -> tuple[Tensor, State | None]:
        """The negative log-likelihood of each target, [P] in nats, and the final state of each segment."""
        rows, state = self.hidden(batch.inputs, batch.lengths, state, batch.carry)
        return F.cross_entropy(self.projection(rows), batch.targets, reduction="none"), state

    @torch.inference_mode()
    def read(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[Tensor, State]:
        """Reads whole segments and returns log P(next id), [B, V] in nats, after the last token of each, with the final states."""
        rows, final = self.hidden(ids, lengths, state)
        assert final is not None
        last = torch.from_numpy(np.cumsum(lengths) - 1).to(rows.device)
        return F.log_softmax(self.projection(rows.index_select(0, last)), dim=-1), final

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads one id of each segment: ids [B] -> log P(next id), [B, V] in nats, and the states after it."""
        return self.read(ids, np.ones(len(ids), np.int64), state)


def build(settings: config.Model, vocab_size: int, seed: int, layout: Layout = "rectangle") -> LanguageModel:
    """A model with first weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(settings, vocab_size, layout)

"""N-grams beside a network. Contexts begin at the last `<eos>`, which stands for the start symbol, as in speech recognition.

Shapes: B segments, P tokens of all of them end to end, R of them, n order, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.interpolation.backoff import Array, BackoffModel
from packlm.interpolation.component import Component, ComponentOutput
from packlm.model.recurrence import State


class NGramComponent(Component):
    """A backoff model, whose state are the last n - 1 words of each segment: [n - 1, B, 1], their ids plus 1, 0 where there is none."""

    state_parts = 1

    def __init__(self, model: BackoffModel, eos: int):
        self.model, self.eos = model, eos

    @property
    def description(self) -> str:
        return f"{self.model.order}-grams"

    def zero_state(self, like: Tensor, segments: int) -> State:
        return (torch.zeros(self.model.order - 1, segments, 1, dtype=torch.int64, device=like.device),)

    def read(self, ids: Tensor, rows: Tensor, lengths: np.ndarray, state: State) -> ComponentOutput:
        contexts = self._contexts(ids.cpu().numpy(), lengths, state[0].squeeze(2).T.cpu().numpy() - 1)

        def probabilities(some: slice) -> Tensor:
            return torch.from_numpy(self.model.probabilities_after(contexts[some])).to(rows.device)

        final = torch.from_numpy(contexts[np.cumsum(lengths) - 1].T + 1).unsqueeze(2).to(state[0].device)
        return ComponentOutput(probabilities, (final,))

    def _contexts(self, ids: Array, lengths: Array, before: Array) -> Array:
        """[P, n - 1] the words up to each token and it, oldest first, given those before each segment [B, n - 1].

        Words before a start symbol do no harm: no n-gram has a start symbol behind another word.
        """
        size, starts = self.model.order - 1, np.cumsum(lengths) - lengths
        words = np.where(ids == self.eos, self.model.start, ids)
        segments, times = np.repeat(np.arange(len(lengths)), lengths), np.arange(len(ids)) - np.repeat(starts, lengths)
        contexts = np.empty((len(ids), size), np.int64)
        for back in range(size):
            earlier = before[segments, np.minimum(size + times - back, size - 1)]
            contexts[:, size - 1 - back] = np.where(times >= back, words[np.maximum(np.arange(len(ids)) - back, 0)], earlier)
        return contexts

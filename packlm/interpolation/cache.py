"""Neural cache (Grave, Joulin and Usunier 2017): tokens that followed similar hidden states in the preceding text become more likely.

    P_cache(w | before t)  =  sum over i of [x_i+1 = w] exp(theta h_t . h_i)  /  sum over i of exp(theta h_t . h_i)

(section 3 there), where i runs over the last `size` positions before t in the same stream or document, h is the input of the softmax layer
and x_i+1 the token that followed.

Shapes: B segments, P tokens of all of them end to end, R of them, L tokens of one segment, K = size, D width into the softmax, V
vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.interpolation.component import Component, ComponentOutput
from packlm.model.recurrence import State

NOTHING, NOT_YET = 0, -1
"""Instead of the token that followed: there is no hidden state, or the token is the next one to be read."""


class CacheComponent(Component):
    """A cache, whose state are hidden states [K, B, D] and the tokens that followed them [K, B, 1], their ids plus 1, oldest first."""

    state_parts = 2

    def __init__(self, size: int, theta: float, vocab_size: int):
        """`theta`: flatness of the distribution; 0: every token that is in the cache counts the same."""
        self.size, self.theta, self.vocab_size = size, theta, vocab_size

    @property
    def description(self) -> str:
        return f"neural cache of {self.size:,} tokens, theta {self.theta:g}"

    def zero_state(self, like: Tensor, segments: int) -> State:
        width = like.shape[-1]
        followers = torch.full((self.size, segments, 1), NOTHING, dtype=torch.int64, device=like.device)
        return like.new_zeros(self.size, segments, width), followers

    def read(self, ids: Tensor, rows: Tensor, lengths: np.ndarray, state: State) -> ComponentOutput:
        ends, keys, followers = np.cumsum(lengths).tolist(), [], []
        for index, (hidden, read) in enumerate(zip(rows.split(lengths.tolist()), (ids + 1).split(lengths.tolist()), strict=True)):
            before = state[1][:, index, 0]
            following = torch.cat([before, read[1:], read.new_full((1,), NOT_YET)])
            following[self.size - 1] = torch.where(before[-1] == NOT_YET, read[0], before[-1])
            keys.append(torch.cat([state[0][:, index], hidden]))
            followers.append(following)

        def probabilities(some: slice) -> Tensor:
            start, stop, parts = some.start, min(some.stop, len(rows)), []
            while start < stop:
                segment = int(np.searchsorted(ends, start, side="right"))
                first = ends[segment] - int(lengths[segment])
                end = min(stop, ends[segment])
                reach = slice(start - first, self.size + end - first)
                parts.append(self._probabilities(rows[start:end], keys[segment][reach], followers[segment][reach]))
                start = end
            return torch.cat(parts)

        final = torch.stack([part[-self.size :] for part in keys], 1), torch.stack([part[-self.size :] for part in followers], 1)
        return ComponentOutput(probabilities, (final[0], final[1].unsqueeze(2)))

    def _probabilities(self, rows: Tensor, keys: Tensor, followers: Tensor) -> Tensor:
        """[L, V] after rows [L, D]; row i has `keys[i : i + K]`, of `keys` [K + L, D], before it."""
        row = torch.arange(len(rows), device=rows.device)[:, None]
        position = torch.arange(len(keys), device=rows.device)
        in_cache = (position >= row) & (position < row + self.size) & (followers > NOTHING)
        similarity = (self.theta * (rows @ keys.T)).double().masked_fill(~in_cache, -torch.inf)
        weights = similarity.softmax(1).where(in_cache.any(1, keepdim=True), 0.0)
        probabilities = weights.new_zeros(len(rows), self.vocab_size)
        return probabilities.scatter_add_(1, (followers - 1).clamp(min=0).expand_as(weights), weights)

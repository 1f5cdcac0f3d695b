"""Neural cache (Grave, Joulin and Usunier 2017): tokens that followed similar hidden states in the preceding text become more likely.

    P_cache(w | before t)  =  sum over i of [x_i+1 = w] exp(theta h_t . h_i)  /  sum over i of exp(theta h_t . h_i)
    P(w | before t)        =  (1 - lambda) P_model(w | before t)  +  lambda P_cache(w | before t)

(section 3 there), where i runs over the last `size` positions before t in the same stream or document, h is the input of the softmax layer
and x_i+1 the token that followed. While the cache is empty, P is P_model.

Shapes: B segments, L tokens of one, K = size, D width into the softmax, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from packlm.batches.segments import Segments
from packlm.evaluation.evaluate import Scorer
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from packlm.model.softmax.loss import RowScores, joined

MAX_ROWS = 128
"""Predictions computed at a time, [rows, V] each: bounds memory."""
EMPTY = -1
"""The following token at positions of the cache that are not filled yet."""


class CachedScorer(Scorer):
    """The model interpolated with a cache, which is part of its state."""

    max_window: int | None = None

    def __init__(self, model: LanguageModel, size: int, theta: float, interpolation: float):
        """`theta`: flatness of the cache distribution; `interpolation`: weight of the cache, lambda in the paper."""
        self.model, self.size, self.theta, self.interpolation = model, size, theta, interpolation
        self.device = model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        """The model's, then the cache: hidden states [K, B, D] and the tokens that followed [K, B], oldest first."""
        model_state = self.model.recurrence.zero_state(segments)
        keys = model_state[-1].new_zeros(self.size, segments, model_state[-1].shape[-1])
        return (*model_state, keys, torch.full((self.size, segments), EMPTY, device=self.device))

    @torch.inference_mode()
    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        batch = segments.batch(self.device)
        assert state is not None
        *model_state, keys, followers = state
        rows, final = self.model.hidden(batch.inputs, batch.lengths, tuple(model_state))
        assert final is not None
        final_keys, final_followers = [], []
        lengths = segments.lengths.tolist()

        def blocks() -> Iterator[RowScores]:
            for index, (hidden, targets) in enumerate(zip(rows.split(lengths), batch.targets.split(lengths), strict=True)):
                all_keys, all_followers = torch.cat([keys[:, index], hidden]), torch.cat([followers[:, index], targets])
                for start in range(0, len(targets), MAX_ROWS):
                    stop = min(start + MAX_ROWS, len(targets))
                    reach = slice(start, self.size + stop)
                    yield self._row_scores(hidden[start:stop], targets[start:stop], all_keys[reach], all_followers[reach])
                final_keys.append(all_keys[len(targets) :])
                final_followers.append(all_followers[len(targets) :])

        row_scores = joined(blocks(), batch.targets, torch.float64)
        return row_scores, (*final, torch.stack(final_keys, 1), torch.stack(final_followers, 1))

    def _row_scores(self, rows: Tensor, targets: Tensor, keys: Tensor, followers: Tensor) -> RowScores:
        """Scores of L rows [L, D]; row i has `keys[i : i + K]`, of `keys` [K + L, D], before it."""
        row = torch.arange(len(rows), device=self.device)[:, None]
        position = torch.arange(len(keys), device=self.device)
        in_cache = (position >= row) & (position < row + self.size) & (followers != EMPTY)
        similarity = (self.theta * (rows @ keys.T)).double().masked_fill(~in_cache, -torch.inf)
        any_in_cache = in_cache.any(1, keepdim=True)
        interpolation = self.interpolation * any_in_cache.double()
        cache_probabilities = similarity.softmax(1).where(any_in_cache, 0.0) * interpolation
        probabilities = self.model.projection(rows).double().softmax(1) * (1 - interpolation)
        probabilities.scatter_add_(1, followers.clamp(min=0).expand_as(cache_probabilities), cache_probabilities)
        of_targets = probabilities.gather(1, targets[:, None])
        entropies = -torch.special.xlogy(probabilities, probabilities).sum(1)
        losses = -of_targets.squeeze(1).log()
        return RowScores(losses, entropies, (probabilities > of_targets).sum(1), torch.zeros_like(losses))

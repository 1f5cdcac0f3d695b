"""A neural cache (Grave et al. 2017): the words that followed alike places of the text just read get likelier.

    P(w | before t) = (1 - share) P_model(w) + share * sum over i of [x_i+1 = w] exp(theta h_t . h_i) / sum over i of exp(theta h_t . h_i)

where i runs over the last `size` places before t of the same stream or document, h is what the softmax gets, and x_i+1 is the token that
followed. Where there is nothing before, the model alone counts.

Shapes: B segments, L tokens of one, K = size, D width into the softmax, V vocabulary.
"""

import torch
from torch import Tensor

from packlm.batches.segments import Segments
from packlm.evaluation.evaluate import Scorer
from packlm.model.language_model import LanguageModel
from packlm.model.loss import RowScores
from packlm.model.recurrence import State

ROWS = 128
"""Predictions at a time, each with the probability of every word: bounds memory."""
NOTHING = -1
"""Stands for the token that followed, at places of the cache that hold nothing yet."""


class CachedScorer(Scorer):
    """The model, with a cache that is carried along beside its state."""

    longest: int | None = None

    def __init__(self, model: LanguageModel, size: int, theta: float, share: float):
        self.model, self.size, self.theta, self.share = model, size, theta, share
        self.device = model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        """The model's, then what was before the softmax [K, B, D] and the token that followed [K, B], the latest last."""
        own = self.model.recurrence.zero_state(segments)
        keys = own[-1].new_zeros(self.size, segments, own[-1].shape[-1])
        return (*own, keys, torch.full((self.size, segments), NOTHING, device=self.device))

    @torch.inference_mode()
    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        batch = segments.batch(self.device)
        assert state is not None
        *own, keys, followers = state
        rows, final = self.model.hidden(batch.inputs, batch.lengths, tuple(own))
        assert final is not None
        found, kept_keys, kept_followers = [], [], []
        lengths = segments.lengths.tolist()
        for number, (hidden, targets) in enumerate(zip(rows.split(lengths), batch.targets.split(lengths), strict=True)):
            known, followed = torch.cat([keys[:, number], hidden]), torch.cat([followers[:, number], targets])
            for start in range(0, len(targets), ROWS):
                stop = min(start + ROWS, len(targets))
                near = slice(start, self.size + stop)
                found.append(self._rows(hidden[start:stop], targets[start:stop], known[near], followed[near]))
            kept_keys.append(known[len(targets) :])
            kept_followers.append(followed[len(targets) :])
        scores = RowScores(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        return scores, (*final, torch.stack(kept_keys, 1), torch.stack(kept_followers, 1))

    def _rows(self, rows: Tensor, targets: Tensor, keys: Tensor, followers: Tensor) -> RowScores:
        """Scores of L rows [L, D], the first of which has the first K of `keys` [K + L, D] before it."""
        number = torch.arange(len(rows), device=self.device)[:, None]
        place = torch.arange(len(keys), device=self.device)
        before = (place >= number) & (place < number + self.size) & (followers != NOTHING)
        likeness = (self.theta * (rows @ keys.T)).double().masked_fill(~before, -torch.inf)
        anything = before.any(1, keepdim=True)
        shares = self.share * anything.double()
        weights = likeness.softmax(1).where(anything, 0.0) * shares
        chances = self.model.projection(rows).double().softmax(1) * (1 - shares)
        chances.scatter_add_(1, followers.clamp(min=0).expand_as(weights), weights)
        wanted = chances.gather(1, targets[:, None])
        entropies = -torch.special.xlogy(chances, chances).sum(1)
        losses = -wanted.squeeze(1).log()
        return RowScores(losses, entropies, (chances > wanted).sum(1), torch.zeros_like(losses))

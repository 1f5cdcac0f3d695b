"""What may not come next: the end before the fewest tokens allowed, n-grams that were there already, banned words (`banned_words`).

Constraints decide what is chosen; the probabilities that are reported know nothing of them. Where they leave nothing at all, a
generation is cut.

Shapes: B prompts, R rows (generations under way), T tokens generated, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.generation.banned_words import BannedWords
from packlm.generation.task import Task


class Constraints:
    """The constraints of a task. The rows of a search carry a state each, [R] int64, which moves as they do."""

    def __init__(self, task: Task):
        self.settings, self.eos, self.device = task.settings, task.eos, task.stepper.device
        self.vocab_size = task.stepper.model.vocab_size
        self.early = self.settings.min_tokens if self.settings.stop_at_eos else 0
        self.banned: BannedWords | None = None
        if self.settings.banned:
            assert task.text is not None
            self.banned = task.text.banned(self.settings.banned, self.device)
        starts = np.zeros(len(task.prompts), np.int64)
        if self.banned is not None:
            for number, ids in enumerate(task.prompts):
                for id in ids.tolist():
                    starts[number] = self.banned.after(int(starts[number]), id)
        self.starts = torch.from_numpy(starts).to(self.device)
        """[B] the state of each prompt."""

    def forbidden(self, ids: Tensor, states: Tensor) -> Tensor | None:
        """[R, V] bool: what may not follow the ids [R, T] of each row; None where everything may."""
        time, size = ids.shape[1], self.settings.no_repeat_ngram
        found = None
        if self.banned is not None:
            last = time + 1 == self.settings.max_tokens
            found = torch.stack([self.banned.forbidden(state, last) for state in states.tolist()])
        if time + 1 < self.early:
            found = self._nothing(len(ids)) if found is None else found
            found[:, self.eos] = True
        if 0 < size <= time:
            found = self._nothing(len(ids)) if found is None else found
            grams = ids.unfold(1, size, 1)
            again = (grams[:, :, :-1] == ids[:, None, time - size + 1 :]).all(-1)
            rows, places = again.nonzero(as_tuple=True)
            found[rows, grams[rows, places, -1]] = True
        return found

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        """[R] the states after a token of each row."""
        if self.banned is None:
            return states
        pairs = zip(states.tolist(), tokens.tolist(), strict=True)
        return torch.tensor([self.banned.after(state, token) for state, token in pairs], dtype=torch.long, device=self.device)

    def _nothing(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.vocab_size, dtype=torch.bool, device=self.device)


def allowed(log_probs: Tensor, forbidden: Tensor | None) -> Tensor:
    """log P [R, V] with -inf for what is forbidden."""
    return log_probs if forbidden is None else log_probs.masked_fill(forbidden, -torch.inf)

"""Logits processors: mask the tokens that `min_tokens`, `no_repeat_ngram` and `banned` forbid.

As MinLength-, NoRepeatNGram- and NoBadWordsLogitsProcessor of Hugging Face transformers, but banned words are found in the text, however
they are tokenized. A masked token cannot be chosen; reported probabilities are those without the mask.

Shapes: B prompts, R rows (hypotheses or samples), T tokens generated, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.generation.banned_words import BannedWords
from packlm.generation.prompt_batch import PromptBatch


class LogitsProcessor:
    """All masks of a prompt batch. Each row carries a state, [R] int64, which the search reorders along with its rows."""

    def __init__(self, batch: PromptBatch, count: int):
        """`count`: number of rows of each prompt."""
        self.settings, self.eos, self.device = batch.settings, batch.eos, batch.stepper.device
        self.min_tokens = self.settings.min_tokens if self.settings.stop_at_eos else 0
        self.banned: BannedWords | None = None
        states = np.zeros(len(batch.prompts), np.int64)
        if self.settings.banned:
            assert batch.detokenizer is not None
            self.banned = batch.detokenizer.banned_words(self.settings.banned, self.device)
            for index, ids in enumerate(batch.prompts):
                for id in ids.tolist():
                    states[index] = self.banned.next_state(int(states[index]), id)
        self.initial_states = torch.from_numpy(states).to(self.device).repeat_interleave(count)
        """[B * count] state after the prompt of each row."""

    def mask(self, log_probs: Tensor, ids: Tensor, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sets ln P of forbidden tokens to -inf.

        Args:
            log_probs: [R, V] of the next token.
            ids: [R, T] generated so far.
            states: [R] of the rows.

        Returns (masked log_probs [R, V], [R] bool: rows in which every token is forbidden; None if nothing is forbidden anywhere).
        """
        time, size = ids.shape[1], self.settings.no_repeat_ngram
        forbidden = None
        if self.banned is not None:
            last = time + 1 == self.settings.max_tokens
            forbidden = torch.stack([self.banned.forbidden(state, last) for state in states.tolist()])
        if time + 1 < self.min_tokens:
            forbidden = torch.zeros_like(log_probs, dtype=torch.bool) if forbidden is None else forbidden
            forbidden[:, self.eos] = True
        if 0 < size <= time:
            forbidden = torch.zeros_like(log_probs, dtype=torch.bool) if forbidden is None else forbidden
            grams = ids.unfold(1, size, 1)
            repeats = (grams[:, :, :-1] == ids[:, None, time - size + 1 :]).all(-1)
            rows, starts = repeats.nonzero(as_tuple=True)
            forbidden[rows, grams[rows, starts, -1]] = True
        if forbidden is None:
            return log_probs, None
        return log_probs.masked_fill(forbidden, -torch.inf), forbidden.all(1)

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """[R] the states after each row's next token, [R]."""
        if self.banned is None:
            return states
        pairs = zip(states.tolist(), tokens.tolist(), strict=True)
        return torch.tensor([self.banned.next_state(state, token) for state, token in pairs], dtype=torch.long, device=self.device)

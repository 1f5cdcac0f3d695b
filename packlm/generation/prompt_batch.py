"""The input and output of every decoding strategy: a batch of prompts, and the generations that continue them.

Shapes: B prompts, R rows (hypotheses or samples), T tokens generated, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from packlm import dataset
from packlm.config import Generate
from packlm.generation.banned_words import BannedWords
from packlm.generation.stepper import Stepper, repeat_rows
from packlm.model.finite import NotFinite
from packlm.model.recurrence import State


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    ids: np.ndarray
    """The generated ids, a final `<eos>` included."""
    log_prob: float
    """ln P(ids | prompt) under the model, in nats. Logits processors, temperature and filters change what is chosen, never this number."""
    finished: bool
    """Whether it ended with `<eos>` or a stop string; false if it was cut at `max_tokens`, or because every next token was forbidden."""


@dataclass(frozen=True)
class Detokenizer:
    """Ids to text, which decoding needs for stop strings and banned words only."""

    spellings: Sequence[bytes]
    """[V] what each id adds to the text before it."""
    decode: Callable[[np.ndarray, np.ndarray], str]
    """(ids of the prompt, generated ids) -> the text that the generated ids add to the prompt."""
    _banned: dict[tuple[tuple[str, ...], torch.device], BannedWords] = field(default_factory=dict, init=False, repr=False)

    def banned_words(self, words: tuple[str, ...], device: torch.device) -> BannedWords:
        """The automaton of some banned words; cached, because its states are expensive to compute."""
        if (words, device) not in self._banned:
            self._banned[words, device] = BannedWords(words, self.spellings, device)
        return self._banned[words, device]


@dataclass(frozen=True)
class PromptBatch:
    """Prompts to continue together, and the settings they are continued with."""

    stepper: Stepper
    prompts: Sequence[np.ndarray]
    settings: Generate
    seed: int
    eos: int
    detokenizer: Detokenizer | None
    before: tuple[Tensor, State] | None = None
    """What reading the prompts gives, `Stepper.read`, if they have been read already."""
    on_ids: Callable[[np.ndarray], None] | None = None
    """Is told the ids of the first row so far, for texts that are shown as they are generated."""

    @property
    def hash_keys(self) -> np.ndarray:
        """[B] uint64 digest of each prompt's ids, its key in the hashes that serve as random numbers."""
        return np.array([int(dataset.ids_digest(ids)[:16], 16) for ids in self.prompts], np.uint64)

    def read(self, count: int) -> tuple[Tensor, State]:
        """Reads the prompts: ln P of the next id [B * count, V] in nats, and the state, each `count` times per prompt, side by side."""
        log_probs, state = self.before or self.stepper.read(self.prompts)
        check_finite(log_probs.logsumexp(-1))
        return log_probs.repeat_interleave(count, 0), repeat_rows(state, count)

    def stopping_criteria(self, prompts: Iterable[int], ids: Tensor, tokens: Tensor) -> Tensor:
        """[R] bool: the rows that end with their last token, by `<eos>` or a stop string.

        Args:
            prompts: index of each row's prompt.
            ids: [R, T] generated so far.
            tokens: [R] the last of them.
        """
        settings = self.settings
        ended = tokens == self.eos if settings.stop_at_eos else torch.zeros_like(tokens, dtype=torch.bool)
        if settings.stop and ids.shape[1] >= settings.min_tokens:
            assert self.detokenizer is not None
            texts = [self.detokenizer.decode(self.prompts[prompt], row) for prompt, row in zip(prompts, ids.cpu().numpy(), strict=True)]
            stopped = [any(string in text for string in settings.stop) for text in texts]
            ended = ended | torch.tensor(stopped, device=ids.device)
        return ended


def check_finite(log_probs: Tensor) -> None:
    """Raises `NotFinite` if a log-probability is infinite or NaN."""
    if not bool(log_probs.isfinite().all()):
        raise NotFinite("the model gives probabilities that are not numbers: its weights are damaged, or its training diverged")

"""What every strategy of decoding works with: its task, what it may know of text, and the generations it returns.

Shapes: B prompts, R rows (generations under way), T tokens generated, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from packlm import dataset
from packlm.base.errors import PacklmError
from packlm.config import Generate
from packlm.generation.banned_words import BannedWords
from packlm.generation.stepper import Stepper


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    ids: np.ndarray
    """The generated ids, with the `<eos>` that ended them."""
    log_prob: float
    """log P(ids | prompt) under the model, in nats: constraints, temperature and filters decide what is chosen, never what this says."""
    finished: bool
    """Whether it ended with `<eos>` or a stop string; false where it was cut: at the most tokens allowed, or where nothing was left that
    may come next."""


@dataclass(frozen=True)
class TextInfo:
    """What decoding, which knows ids, has to know of text."""

    spellings: Sequence[bytes]
    """[V] what each id adds to the text before it."""
    of: Callable[[np.ndarray, np.ndarray], str]
    """The text that ids generated after a prompt's ids add to it."""
    _banned: dict[tuple[tuple[str, ...], torch.device], BannedWords] = field(default_factory=dict, init=False, repr=False)

    def banned(self, words: tuple[str, ...], device: torch.device) -> BannedWords:
        """Banned words, with all that was found about them before."""
        if (words, device) not in self._banned:
            self._banned[words, device] = BannedWords(words, self.spellings, device)
        return self._banned[words, device]


@dataclass(frozen=True)
class Task:
    """Prompts to continue, and how."""

    stepper: Stepper
    prompts: Sequence[np.ndarray]
    settings: Generate
    seed: int
    eos: int
    text: TextInfo | None

    @property
    def keys(self) -> np.ndarray:
        """[B] uint64: the number of each prompt in the hashes of random numbers, a digest of its ids."""
        return np.array([int(dataset.ids_digest(ids)[:16], 16) for ids in self.prompts], np.uint64)

    def ended(self, prompts: Iterable[int], ids: Tensor, tokens: Tensor) -> Tensor:
        """[R] bool: which rows end with their last token.

        Args:
            prompts: the number of each row's prompt.
            ids: [R, T] generated so far.
            tokens: [R] the last of them.
        """
        settings = self.settings
        ended = tokens == self.eos if settings.stop_at_eos else torch.zeros_like(tokens, dtype=torch.bool)
        if settings.stop and ids.shape[1] >= settings.min_tokens:
            assert self.text is not None
            texts = [self.text.of(self.prompts[prompt], row) for prompt, row in zip(prompts, ids.cpu().numpy(), strict=True)]
            stopped = [any(string in text for string in settings.stop) for text in texts]
            ended = ended | torch.tensor(stopped, device=ids.device)
        return ended


def check(log_probs: Tensor) -> None:
    """`PacklmError` where log P of something is infinite or not a number."""
    if not bool(log_probs.isfinite().all()):
        raise PacklmError("the model gives probabilities that are not numbers: its weights are damaged, or its training diverged")

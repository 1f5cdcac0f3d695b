"""Continuing prompts: the entry to all strategies over ids.

What comes of a prompt depends on the prompt, the seed and the settings alone, to the bit on one device: not on the prompts beside it, their
order, or the size of the batch (`stepper` says how). `log_prob` is always the model's own log P(generated tokens | prompt).
"""

from collections.abc import Sequence

import numpy as np
import torch

from packlm.config import Generate
from packlm.generation.beam_search import beam
from packlm.generation.sampling import greedy, sample
from packlm.generation.stepper import Stepper
from packlm.generation.task import Generation, Task, TextInfo
from packlm.generation.without_replacement import sample_without_replacement


def generate(
    stepper: Stepper, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, text: TextInfo | None = None
) -> list[list[Generation]]:  # fmt: skip
    """Continues prompts.

    Args:
        prompts: ids to read before the first prediction, each at least the `<eos>` that every text starts after.
        settings: strategy and its parameters; `prompts` and `batch_tokens` are not looked at.
        eos: ends a generation, where `settings.stop_at_eos`.
        text: what is to be known of text; needed for `settings.banned` and `settings.stop`.

    Returns:
        For each prompt `settings.samples` generations (one with greedy, at most `settings.beams` with beam search, and fewer where
        there are no more), the likeliest first; with beam search in the order of `packlm.generation.beam_search.score`.

    Raises:
        PacklmError: a probability is not a number.
    """
    task = Task(stepper, prompts, settings, seed, eos, text)
    with torch.inference_mode():
        if settings.strategy == "beam":
            return beam(task)
        if settings.strategy == "greedy":
            found = greedy(task)
        else:
            found = sample(task) if settings.replacement else sample_without_replacement(task)
    return [sorted(generations, key=lambda generation: -generation.log_prob) for generations in found]

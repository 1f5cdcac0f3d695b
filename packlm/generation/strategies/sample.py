"""Sampling: every token from the filtered distribution; `samples` generations of each prompt, the most likely first."""

import numpy as np
import torch
from torch import Tensor

from packlm.generation.prompt_batch import Generation, PromptBatch
from packlm.generation.sampling import sample_ids
from packlm.generation.strategies.without_replacement import sample_without_replacement
from packlm.generation.token_loop import extend_rows
from packlm.model import hashed_dropout


def generate(batch: PromptBatch) -> list[list[Generation]]:
    samples = _independent_samples(batch) if batch.settings.replacement else sample_without_replacement(batch)
    return [sorted(generations, key=lambda generation: -generation.log_prob) for generations in samples]


def _independent_samples(batch: PromptBatch) -> list[list[Generation]]:
    """The random number of a token is a hash of the seed, the prompt's ids, the index of the sample and the time."""
    count = batch.settings.samples
    keys, indices = np.repeat(batch.hash_keys, count), np.tile(np.arange(count), len(batch.prompts))

    def choose(log_probs: Tensor, rows: np.ndarray, time: int) -> Tensor:
        uniform = torch.from_numpy(hashed_dropout.uniform(batch.seed, keys[rows], indices[rows], time)).to(log_probs.device)
        return sample_ids(log_probs, uniform, batch.settings)

    return extend_rows(batch, count, choose)

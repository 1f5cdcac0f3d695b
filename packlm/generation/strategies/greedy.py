"""Greedy search: the most likely token at every step; one generation of each prompt."""

import torch
from torch import Tensor

from packlm.generation.prompt_batch import Generation, PromptBatch
from packlm.generation.token_loop import extend_rows


def generate(batch: PromptBatch) -> list[list[Generation]]:
    return extend_rows(batch, 1, lambda log_probs, rows, time: _argmax(log_probs))


def _argmax(log_probs: Tensor) -> Tensor:
    """[R] the most likely id of each row of [R, V], the first of equals. NumPy's is ten times as fast as torch's on CPUs."""
    return torch.from_numpy(log_probs.numpy().argmax(-1)) if log_probs.device.type == "cpu" else log_probs.argmax(-1)

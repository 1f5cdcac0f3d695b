"""Greedy search: the most likely token at every step; one generation of each prompt."""

from packlm.generation.prompt_batch import Generation, PromptBatch
from packlm.generation.token_loop import extend_rows


def generate(batch: PromptBatch) -> list[list[Generation]]:
    return extend_rows(batch, 1, lambda log_probs, rows, time: log_probs.argmax(-1))

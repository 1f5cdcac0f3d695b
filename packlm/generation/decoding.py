"""Continuing prompts, given as ids: batches of prompts, and the entry to all decoding strategies.

The continuation of a prompt depends on the prompt, the seed and the settings alone, bit for bit on one device: not on the other prompts of
the batch, their order or number (see `stepper`). `log_prob` is always the model's own ln P(generated tokens | prompt).
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.config import Generate
from packlm.generation.prompt_batch import Detokenizer, Generation, PromptBatch
from packlm.generation.stepper import Stepper
from packlm.model.recurrence import State

T = TypeVar("T")

MAX_PROBABILITIES = 1 << 27
"""Most probabilities that a step of one prompt computes, rows times vocabulary; each takes some tens of bytes."""


def generate(
    stepper: Stepper, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, detokenizer: Detokenizer | None = None,
    before: tuple[Tensor, State] | None = None, on_ids: Callable[[np.ndarray], None] | None = None,
) -> list[list[Generation]]:  # fmt: skip
    """Continues prompts.

    Args:
        prompts: ids to read before the first prediction, each at least the `<eos>` that every text starts after.
        settings: strategy and its parameters; `prompts` and `batch_tokens` are not read.
        eos: the id that ends a generation if `settings.stop_at_eos`.
        detokenizer: required for `settings.banned` and `settings.stop`.
        before: what reading the prompts gives, `Stepper.read`, if they have been read already.
        on_ids: is called with the ids of the first row so far whenever it has another one; not by beam search.

    Returns:
        For each prompt at most `settings.num_rows` generations, the most likely first; with beam search the one with the best score.

    Raises:
        NotFinite: a probability is infinite or NaN.
    """
    strategy: Callable[[PromptBatch], list[list[Generation]]] = import_module(f"packlm.generation.strategies.{settings.strategy}").generate
    with torch.inference_mode():
        return strategy(PromptBatch(stepper, prompts, settings, seed, eos, detokenizer, before, on_ids))


def resolve(settings: Mapping[str, Any], seed: Any, vocab_size: int) -> tuple[Generate, int]:
    """Validates the settings of `generate` and the seed of a request, whoever makes it.

    Raises:
        RequestError: naming every wrong one; or a step of one prompt would compute more than `MAX_PROBABILITIES`.
    """
    config = configuration.resolve({"generate": dict(settings), "run": {"seed": seed}})
    check_memory(config.generate, vocab_size)
    return config.generate, config.run.seed


def check_memory(settings: Generate, vocab_size: int) -> None:
    """Raises `RequestError` if a step of one prompt would compute more than `MAX_PROBABILITIES`."""
    if settings.num_rows * vocab_size > MAX_PROBABILITIES:
        name = "beams" if settings.strategy == "beam" else "samples"
        most = max(1, MAX_PROBABILITIES // vocab_size)
        raise RequestError(f"generate.{name} = {settings.num_rows:,}: at most {most:,} with a vocabulary of {vocab_size:,}, for memory")


def in_batches(prompts: Sequence[np.ndarray], settings: Generate, run: Callable[[list[int]], list[T]]) -> list[T]:
    """What `run` makes of each prompt (ids of each), batch by batch (`prompt_batches`), in the order of the prompts."""
    results: dict[int, T] = {}
    for batch in prompt_batches(prompts, settings):
        results |= dict(zip(batch, run(batch), strict=True))
    return [results[index] for index in range(len(prompts))]


def prompt_batches(prompts: Sequence[np.ndarray], settings: Generate) -> list[list[int]]:
    """Batches of prompts (ids of each), shortest first, as lists of indices; a function of prompts and settings alone.

    A batch holds at most `settings.batch_tokens`: rows times the longest prompt with its continuation; at least one prompt.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        tokens = settings.num_rows * (len(prompts[index]) + settings.max_tokens)
        if batches and (len(batches[-1]) + 1) * tokens <= settings.batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches

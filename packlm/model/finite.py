"""Numbers that are not finite: an error where they arise, so that they are in no result and no file."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from packlm.base.errors import PacklmError

MAX_LOSS = 700.0
"""Mean loss per token, in nats, from which on there is no perplexity: its exponential is close to the end of float64."""
CAUSE = "the weights are unusable: the training diverged, or dynamic_lr is too high"


class NotFinite(PacklmError):
    """A loss, probability or weight is infinite or NaN."""


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats; `NotFinite` if it is infinite or NaN."""
    if not -math.inf < loss < MAX_LOSS:
        raise NotFinite(f"a mean loss of {loss:.6g} nats has no finite perplexity: {CAUSE}")
    return math.exp(loss)


def check(values: np.ndarray, what: str) -> None:
    """Raises `NotFinite`, with the first such value, if one of `values` is infinite or NaN."""
    wrong = values[~np.isfinite(values)]
    if len(wrong):
        raise NotFinite(f"{what} is {wrong[0]}: {CAUSE}")


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinite number or NaN; None if there is none."""
    return next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Puts what is measured before the message of a `NotFinite` in the block."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{what}: {error}") from None

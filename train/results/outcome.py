"""What came of a training: better weights, only worse ones than it began with, or none that are of use."""

import logging
import math

from packlm.base.errors import PacklmError

from ..progress.progress import perplexity_text
from ..state import ValidationResults

log = logging.getLogger("packlm")

DIVERGED_NATS = 1.0
"""A validation loss this far above that of a uniform guess, and above that before training, is no success of any training."""


def is_diverged(loss: float, validation: ValidationResults, vocab_size: int) -> bool:
    """Whether a validation loss is clearly worse than a uniform guess and than before training."""
    return loss > max(math.log(vocab_size), validation.before.loss if validation.before else 0.0) + DIVERGED_NATS


def check(validation: ValidationResults, vocab_size: int, lr: float, remedy: str) -> None:
    """Before the export: warns if the best weights are those that fine-tuning began with.

    Raises:
        PacklmError: the training diverged: no weights of it are better than a guess.
    """
    best, last = validation.best, validation.last
    if last is None or (best and best.step > 0):
        return
    if is_diverged(last.loss, validation, vocab_size):
        raise PacklmError(
            f"the training diverged: validation perplexity {perplexity_text(last.perplexity)} at step {last.step:,}, and a uniform guess "
            f"has {vocab_size:,}; no model was written. {remedy}"
        )
    if best:
        log.warning(
            "training has not improved the initial model (validation perplexity %s before, %s at the end): its weights are exported "
            "unchanged; lower train.lr (%g here) or train on more text",
            perplexity_text(best.perplexity), perplexity_text(last.perplexity), lr,
        )  # fmt: skip

"""A training that is continued with another length, finished or not: longer, or to an earlier end that it has not passed.

Schedules that do not depend on the total number of steps (constant, inverse_sqrt, plateau, zaremba) go on as if the training had had this
length from the beginning. The others (linear, cosine, wsd) follow, from the next step on, the curve of the new length: their learning rate
may rise again.
"""

import logging

from packlm.base.errors import RequestError

from .trainer import Trainer

log = logging.getLogger("packlm")

BY_TOTAL = ("linear", "cosine", "wsd")
"""Schedules that depend on the total number of steps."""


def check(trainer: Trainer, complete: bool, changes: str) -> None:
    """All ranks: says how the training goes on.

    Args:
        complete: whether it had ended.
        changes: the settings that have changed.

    Raises:
        RequestError: it has gone further than that, or no checkpoint is left to continue from.
    """
    folder, step, total = trainer.folder, trainer.resume_step, trainer.total_steps
    if complete and step is None:
        raise RequestError(
            f"{trainer.checkpoints}: no checkpoint of the finished training is left to continue from ({changes}); train it anew with "
            "--rebuild, or choose another --run.name"
        )
    if step is not None and step >= total:
        raise RequestError(
            f"{folder}: this training has {step:,} steps already, and would have {total:,} ({changes}); make it longer, replace it with "
            "--rebuild, or choose another --run.name"
        )
    settings = trainer.config.train
    log.info("continuing with another length: %s", changes)
    if step and settings.schedule in BY_TOTAL:
        log.info(
            "train.schedule = %s follows the curve of %s steps from here on: learning rate %.3g in the next step",
            settings.schedule, f"{total:,}", trainer.schedule.lr(step, epoch=0),
        )  # fmt: skip

"""Which prompts are continued together: a function of the prompts and the settings alone."""

from collections.abc import Sequence

import numpy as np

from packlm.config import Generate


def batches_of(prompts: Sequence[np.ndarray], settings: Generate) -> list[list[int]]:
    """Batches of prompts ([ids] each), shortest first, by their numbers.

    A batch holds about `settings.batch_tokens`: its rows (several a prompt, where samples or beams are) times the longest prompt and what
    may follow it; at least one prompt.
    """
    rows = {"greedy": 1, "sample": settings.samples, "beam": settings.beams}[settings.strategy]
    batches: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        tokens = rows * (len(prompts[number]) + settings.max_tokens)
        if batches and (len(batches[-1]) + 1) * tokens <= settings.batch_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches

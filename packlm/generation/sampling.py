"""Generations token by token: the likeliest one, or independent random ones.

Shapes: B prompts, n generations of each, R = B * n rows, V vocabulary.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from packlm.generation.constraints import Constraints, allowed
from packlm.generation.draw import draw
from packlm.generation.stepper import advance, expand
from packlm.generation.task import Generation, Task, check
from packlm.model import hashed_dropout

COMPACT_EVERY = 8
"""Steps between two looks at which rows are finished; each look makes the processor wait for the device."""


def greedy(task: Task) -> list[list[Generation]]:
    """Takes the likeliest token at every step; one generation a prompt."""
    return _draw(task, 1, lambda log_probs, which, time: log_probs.argmax(-1))


def sample(task: Task) -> list[list[Generation]]:
    """Draws each token from the distribution that constraints and filters leave (`packlm.generation.draw.filtered`); `samples` a prompt.

    The random number of a draw is a hash of the seed, the prompt's ids, the number of the sample and the time.
    """
    settings, count = task.settings, task.settings.samples
    keys, numbers = np.repeat(task.keys, count), np.tile(np.arange(count), len(task.prompts))

    def choose(log_probs: Tensor, which: np.ndarray, time: int) -> Tensor:
        uniform = torch.from_numpy(hashed_dropout.uniform(task.seed, keys[which], numbers[which], time)).to(log_probs.device)
        filters = (settings.temperature, settings.top_k, settings.top_p, settings.min_p, settings.typical_p)
        return draw(log_probs, uniform, *filters)

    return _draw(task, count, choose)


def _draw(task: Task, count: int, choose: Callable[[Tensor, np.ndarray, int], Tensor]) -> list[list[Generation]]:
    """Continues each prompt `count` times: `choose(log P [R, V], -inf for what may not come, which rows [R], time)` -> [R] ids."""
    constraints, limit = Constraints(task), task.settings.max_tokens
    log_probs, state = task.stepper.read(task.prompts)
    check(log_probs.logsumexp(-1))
    log_probs, state = log_probs.repeat_interleave(count, 0), expand(state, count)
    states = constraints.starts.repeat_interleave(count)
    rows = torch.arange(len(log_probs), device=log_probs.device)
    which = np.arange(len(rows))  # the same where the processor can read it without waiting
    ids = torch.zeros(len(rows), limit, dtype=torch.long, device=rows.device)
    totals = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    lengths = torch.zeros_like(rows)
    running = torch.ones_like(rows, dtype=torch.bool)
    finished = torch.zeros_like(running)
    for time in range(limit):
        forbidden = constraints.forbidden(ids[rows, :time], states)
        if forbidden is not None:
            running[rows] &= ~forbidden.all(1)
        tokens = choose(allowed(log_probs, forbidden), which, time)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).double()
        going = running[rows]
        totals.index_add_(0, rows, torch.where(going, chosen, 0.0))
        lengths.index_add_(0, rows, going.long())
        ids[rows, time] = tokens
        ended = going & task.ended((which // count).tolist(), ids[rows, : time + 1], tokens)
        finished[rows] |= ended
        running[rows] = going & ~ended
        if time + 1 == limit:
            break
        states = constraints.after(states, tokens)
        if (time + 1) % COMPACT_EVERY == 0:
            places = running[rows].nonzero().squeeze(1)
            if not len(places):
                break
            rows, tokens, states, state = rows[places], tokens[places], states[places], advance(state, places)
            which = rows.cpu().numpy()
        log_probs, state = task.stepper.step(tokens, state)
    check(totals)
    drawn = zip(ids.cpu().numpy(), lengths.tolist(), totals.tolist(), finished.tolist(), strict=True)
    generations = [Generation(row[:length].copy(), total, ended) for row, length, total, ended in drawn]
    return [generations[start : start + count] for start in range(0, len(generations), count)]

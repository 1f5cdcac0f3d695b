"""The loop of strategies that extend every row by one token at a time, whatever the other rows do: greedy search and sampling.

Shapes: B prompts, n rows of each, R rows still running (at first B * n), V vocabulary.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from packlm.generation.logits_processors import LogitsProcessor
from packlm.generation.prompt_batch import Generation, PromptBatch, check_finite
from packlm.generation.stepper import select_rows

COMPACT_EVERY = 8
"""Steps between two removals of finished rows; each makes the CPU wait for the device."""


def extend_rows(batch: PromptBatch, count: int, choose: Callable[[Tensor, np.ndarray, int], Tensor]) -> list[list[Generation]]:
    """Continues each prompt `count` times.

    Args:
        choose: (ln P of the next token [R, V], -inf where forbidden; index of each row among all B * n, [R]; time) -> [R] ids.

    Returns for each prompt its `count` generations, in the order of the rows.
    """
    processor, limit = LogitsProcessor(batch, count), batch.settings.max_tokens
    (log_probs, state), states = batch.read(count), processor.initial_states
    rows = torch.arange(len(log_probs), device=log_probs.device)
    rows_on_cpu = np.arange(len(rows))
    ids = torch.zeros(len(rows), limit, dtype=torch.long, device=rows.device)
    totals = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    lengths = torch.zeros_like(rows)
    running = torch.ones_like(rows, dtype=torch.bool)
    finished = torch.zeros_like(running)
    for time in range(limit):
        masked, dead_ends = processor.mask(log_probs, ids[rows, :time], states)
        if dead_ends is not None:
            running[rows] &= ~dead_ends
        tokens = choose(masked, rows_on_cpu, time)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).double()
        going = running[rows]
        totals.index_add_(0, rows, torch.where(going, chosen, 0.0))
        lengths.index_add_(0, rows, going.long())
        ids[rows, time] = tokens
        ended = going & batch.stopping_criteria((rows_on_cpu // count).tolist(), ids[rows, : time + 1], tokens)
        finished[rows] |= ended
        running[rows] = going & ~ended
        if batch.on_ids is not None and bool(running[0]):
            batch.on_ids(ids[0, : time + 1].cpu().numpy().copy())
        if time + 1 == limit:
            break
        states = processor.advance(states, tokens)
        if (time + 1) % COMPACT_EVERY == 0:
            active = running[rows].nonzero().squeeze(1)
            if not len(active):
                break
            rows, tokens, states, state = rows[active], tokens[active], states[active], select_rows(state, active)
            rows_on_cpu = rows.cpu().numpy()
        log_probs, state = batch.stepper.step(tokens, state)
    check_finite(totals)
    items = zip(ids.cpu().numpy(), lengths.tolist(), totals.tolist(), finished.tolist(), strict=True)
    generations = [Generation(row[:length].copy(), total, ended) for row, length, total, ended in items]
    return [generations[start : start + count] for start in range(0, len(generations), count)]

"""Samples without replacement: n different sequences, drawn one after the other from what the earlier ones leave.

Stochastic beam search (Kool, van Hoof and Welling 2019). Were Gumbel noise added to log P of every sequence, the n largest sums would be
such a sample, in order. Nobody can list all sequences; but the largest sum below a node of the tree is distributed in a known way given
that of its parent, so a beam search over sums, each child's drawn given its parent's, finds what listing them would have found.

The random number of a node is a hash of the seed, the prompt's ids and the ids on the way to the node.

Shapes: B prompts still searched, K = n hypotheses of each, V vocabulary, T tokens generated.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.generation.constraints import Constraints, allowed
from packlm.generation.draw import filtered
from packlm.generation.stepper import advance, expand
from packlm.generation.task import Generation, Task, check
from packlm.model import hashed_dropout


def sample_without_replacement(task: Task) -> list[list[Generation]]:
    """Draws `samples` different generations of each prompt, in the order of the draws; fewer where there are no more.

    A sequence has the probability that `sampling.sample` gives it, constraints and filters included; what is cut at `max_tokens`, or
    where nothing may come next, is a sequence like any other.
    """
    width, limit = task.settings.samples, task.settings.max_tokens
    constraints = Constraints(task)
    log_probs, state = task.stepper.read(task.prompts)
    check(log_probs.logsumexp(-1))
    device, count, vocab_size = log_probs.device, *log_probs.shape
    log_probs, state = log_probs.repeat_interleave(width, 0), expand(state, width)
    states = constraints.starts.repeat_interleave(width)
    keys, paths = np.repeat(task.keys, width), np.zeros(count * width, np.uint64)
    sums = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)  # log P and Gumbel noise; -inf: no hypothesis
    sums[:, 0] = 0.0
    drawn, totals = torch.zeros_like(sums), torch.zeros_like(sums)  # log P of what is drawn from, and the model's own
    complete, finished = torch.zeros_like(sums, dtype=torch.bool), torch.zeros_like(sums, dtype=torch.bool)
    lengths = torch.zeros_like(sums, dtype=torch.long)
    ids = torch.zeros(count, width, 0, dtype=torch.long, device=device)
    alive, results = list(range(count)), [list[Generation]() for _ in task.prompts]
    for time in range(limit):
        forbidden = constraints.forbidden(ids.flatten(0, 1), states)
        if forbidden is not None:
            complete = complete | forbidden.all(1).view_as(complete)
        chances = _log_chances(allowed(log_probs, forbidden), task) + drawn.view(-1, 1)
        uniform = torch.from_numpy(hashed_dropout.uniform(task.seed, keys[:, None], paths[:, None], np.arange(vocab_size))).to(device)
        children = _children(chances, sums.view(-1), uniform)
        # What is complete stands, in the place of its first child.
        standing = torch.full_like(children, -torch.inf)
        standing[:, 0] = sums.view(-1)
        children = torch.where(complete.view(-1, 1), standing, children)
        sums, places = children.view(len(alive), -1).topk(width, dim=-1)
        parents, tokens = places // vocab_size, places % vocab_size
        sources = (parents + torch.arange(len(alive), device=device)[:, None] * width).flatten()
        was_complete, flat = complete.gather(1, parents), tokens.flatten()
        added = torch.where(was_complete, 0.0, log_probs[sources, flat].double().view_as(sums))
        totals = totals.gather(1, parents) + added
        drawn = torch.where(was_complete, drawn.gather(1, parents), chances[sources, flat].view_as(sums))
        lengths = lengths.gather(1, parents) + (~was_complete).long()
        ids = torch.cat([ids.flatten(0, 1)[sources], flat[:, None]], 1).unflatten(0, sums.shape)
        ended = task.ended([prompt for prompt in alive for _ in range(width)], ids.flatten(0, 1), flat).view_as(sums) & ~was_complete
        finished = finished.gather(1, parents) | ended
        complete = was_complete | ended
        check(totals.masked_fill(sums.isneginf(), 0.0))
        last = time + 1 == limit
        settled = ((complete | sums.isneginf()).all(1) | last).tolist()
        for place, prompt in enumerate(alive):
            if settled[place]:
                results[prompt] = _harvest(ids[place], lengths[place], totals[place], finished[place], sums[place])
        going = [place for place, done in enumerate(settled) if not done]
        if not going:
            break
        spots = torch.tensor(going, device=device)
        rows = (spots[:, None] * width + torch.arange(width, device=device)).flatten()
        sources, flat, alive = sources[rows], flat[rows], [alive[place] for place in going]
        sums, drawn, totals, complete, finished, lengths, ids = (
            part[spots] for part in (sums, drawn, totals, complete, finished, lengths, ids)
        )  # fmt: skip
        order = sources.cpu().numpy()
        keys, paths = keys[order], hashed_dropout.scramble(paths[order], flat.cpu().numpy())
        states = constraints.after(states[sources], flat)
        log_probs, state = task.stepper.step(flat, advance(state, sources))
    return results


def _log_chances(log_probs: Tensor, task: Task) -> Tensor:
    """[R, V] float64 log P of what is drawn from: what the filters leave of log P [R, V]."""
    settings = task.settings
    filters = (settings.temperature, settings.top_k, settings.top_p, settings.min_p, settings.typical_p)
    chances, ids = filtered(log_probs, *filters)
    chances = chances / chances.sum(-1, keepdim=True)
    if ids is not None:
        chances = torch.zeros_like(log_probs, dtype=torch.float64).scatter(-1, ids, chances)
    return chances.log()


def _children(chances: Tensor, sums: Tensor, uniform: Tensor) -> Tensor:
    """The perturbed log P of nodes given that of their parents, which is the largest of them (Kool et al. 2019, section 4.1, appendix B.3).

    Args:
        chances: [R, V] log P of each node, -inf where there is none; sums: [R] perturbed log P of the parents; uniform: [R, V] in (0, 1).

    Returns [R, V] perturbed log P, -inf where there is no node.
    """
    gumbels = chances - (-uniform.log()).log()
    largest = gumbels.amax(-1, keepdim=True)
    gap = sums[:, None] - gumbels + _log1mexp(gumbels - largest)
    shifted = sums[:, None] - gap.clamp(min=0) - torch.log1p(torch.exp(-gap.abs()))
    return torch.where(chances.isneginf() | sums[:, None].isneginf(), -torch.inf, shifted)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0 (Maechler 2012)."""
    return torch.where(x > -0.6931471805599453, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def _harvest(ids: Tensor, lengths: Tensor, totals: Tensor, finished: Tensor, sums: Tensor) -> list[Generation]:
    """The hypotheses of a prompt that exist; they come in the order of their sums."""
    rows = zip(ids.cpu().numpy(), lengths.tolist(), totals.tolist(), finished.tolist(), sums.tolist(), strict=True)
    return [Generation(row[:length].copy(), total, ended) for row, length, total, ended, sum_ in rows if sum_ > -np.inf]

"""Beam search: the likeliest sequences that K hypotheses at a time lead to.

Shapes: B prompts still searched, K hypotheses of each, V vocabulary, T tokens generated.
"""

import bisect
from dataclasses import dataclass, field

import torch
from torch import Tensor

from packlm.generation.constraints import Constraints, allowed
from packlm.generation.stepper import advance, expand
from packlm.generation.task import Generation, Task, check


def score(log_prob: float, tokens: int, length_penalty: float) -> float:
    """What hypotheses are ranked by: log P / tokens^length_penalty. 0 is log P itself; 1 the mean of a token (Boulanger-Lewandowski et al.
    2013); powers between are usual in translation (Murray and Chiang 2018)."""
    return log_prob / max(tokens, 1) ** length_penalty


@dataclass
class _Best:
    """The best hypotheses of a prompt that are complete."""

    wanted: int
    length_penalty: float
    found: list[tuple[float, Generation]] = field(default_factory=list)

    def add(self, generation: Generation) -> None:
        own = score(generation.log_prob, len(generation.ids), self.length_penalty)
        bisect.insort(self.found, (own, generation), key=lambda item: -item[0])
        del self.found[self.wanted :]

    def beyond_reach(self, log_prob: float, limit: int) -> bool:
        """Whether nothing that goes on from this log P can still get among the best.

        log P only falls, and as it is negative more tokens make the most of it: log P / limit^length_penalty bounds every score to come.
        """
        return len(self.found) == self.wanted and score(log_prob, limit, self.length_penalty) <= self.found[-1][0]


def beam(task: Task) -> list[list[Generation]]:
    """Beam search (Graves 2012, section 2.4; Sutskever et al. 2014): at every step the K likeliest of all extensions are kept.

    Of these, those that end are put aside and the others are extended. A prompt is done when none is left, or none can get among the
    best n any more. What is cut, at `max_tokens` or where nothing may come next, stands with the log P it has. Returns the best
    min(samples, beams) of all that were put aside, by `score`, best first.
    """
    settings, limit = task.settings, task.settings.max_tokens
    width, wanted = settings.beams, min(settings.samples, settings.beams)
    constraints = Constraints(task)
    log_probs, state = task.stepper.read(task.prompts)
    check(log_probs.logsumexp(-1))
    device, count = log_probs.device, len(task.prompts)
    log_probs, state = log_probs.repeat_interleave(width, 0), expand(state, width)
    states = constraints.starts.repeat_interleave(width)
    # At first there is one hypothesis a prompt, so all but one of its places are impossible.
    totals = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)
    totals[:, 0] = 0.0
    ids = torch.zeros(count, width, 0, dtype=torch.long, device=device)
    best = [_Best(wanted, settings.length_penalty) for _ in task.prompts]
    alive = list(range(count))
    for time in range(limit):
        forbidden = constraints.forbidden(ids.flatten(0, 1), states)
        if forbidden is not None:
            stuck = forbidden.all(1).view_as(totals) & ~totals.isneginf()
            _put_aside(stuck, alive, ids, totals, best, finished=False)
        totals, parents, tokens = _extend(totals, allowed(log_probs, forbidden))
        check(totals.nan_to_num(nan=torch.inf, neginf=0.0))
        sources = (parents + torch.arange(len(alive), device=device)[:, None] * width).flatten()
        ids = torch.cat([ids.flatten(0, 1)[sources], tokens.reshape(-1, 1)], 1).unflatten(0, totals.shape)
        prompts = [prompt for prompt in alive for _ in range(width)]
        possible = ~totals.isneginf()
        ended = task.ended(prompts, ids.flatten(0, 1), tokens.flatten()).view_as(totals) & possible
        _put_aside(ended, alive, ids, totals, best, finished=True)
        if time + 1 == limit:
            _put_aside(possible & ~ended, alive, ids, totals, best, finished=False)
            break
        totals = totals.masked_fill(ended, -torch.inf)
        likeliest = totals.amax(1).tolist()
        going = [
            place for place, prompt in enumerate(alive)
            if likeliest[place] > -torch.inf and not best[prompt].beyond_reach(likeliest[place], limit)
        ]  # fmt: skip
        if not going:
            break
        places = torch.tensor(going, device=device)
        rows = (places[:, None] * width + torch.arange(width, device=device)).flatten()
        sources, tokens, alive = sources[rows], tokens.flatten()[rows], [alive[place] for place in going]
        totals, ids = totals[places], ids[places]
        states = constraints.after(states[sources], tokens)
        log_probs, state = task.stepper.step(tokens, advance(state, sources))
    return [[generation for _, generation in own.found] for own in best]


def _extend(totals: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The K likeliest of all extensions of K hypotheses.

    Args:
        totals: [B, K] log P of each hypothesis, -inf where there is none.
        log_probs: [B * K, V] log P of each next id.

    Returns, each [B, K] and likeliest first: log P, the hypothesis extended, the id it is extended by.
    """
    count, width = totals.shape
    best, tokens = log_probs.topk(min(width, log_probs.shape[1]), dim=-1)
    candidates = (totals[:, :, None] + best.double().view(count, width, -1)).flatten(1)
    totals, places = candidates.topk(width, dim=-1)
    return totals, places // best.shape[1], tokens.view(count, -1).gather(1, places)


def _put_aside(which: Tensor, alive: list[int], ids: Tensor, totals: Tensor, best: list[_Best], finished: bool) -> None:
    """Adds the hypotheses marked in `which` [B, K] to the best of their prompts, each as long as `ids` [B, K, T]."""
    owners = which.nonzero()[:, 0].tolist()
    if owners:
        for place, row, total in zip(owners, ids[which].cpu().numpy(), totals[which].tolist(), strict=True):
            best[alive[place]].add(Generation(row, total, finished))

"""Beam search (Graves 2012, section 2.4; Sutskever et al. 2014): at every step the K most likely extensions of K hypotheses are kept.

Diverse beam search (Vijayakumar et al. 2018, algorithm 1, Hamming diversity) divides the K hypotheses into G groups that are searched one
after the other at every step: a group pays `diversity` nats for each time that a group before it has chosen the same token at this step.
The payment decides what is kept; it is no part of ln P.

Shapes: B prompts still searched, K = `beams` hypotheses of each, G = `beam_groups`, V vocabulary, T tokens generated.
"""

import bisect
import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from packlm.generation.logits_processors import LogitsProcessor
from packlm.generation.prompt_batch import Generation, PromptBatch, check_finite
from packlm.generation.stepper import select_rows


def length_normalized(log_prob: float, num_tokens: int, alpha: float) -> float:
    """The score that hypotheses are ranked by: ln P(y | x) / T^alpha for a hypothesis y of T tokens; alpha is `length_penalty`.

    0 ranks by ln P, 1 by its mean per token (Boulanger-Lewandowski et al. 2013), which favours longer hypotheses. This is
    `length_penalty` of Hugging Face transformers; Wu et al. (2016, equation 14) have ((5 + T) / 6)^alpha instead of T^alpha.
    """
    return log_prob / max(num_tokens, 1) ** alpha


@dataclass
class _BestHypotheses:
    """The best complete hypotheses of a prompt, by their scores, best first."""

    size: int
    alpha: float
    scored: list[tuple[float, Generation]] = field(default_factory=list)

    def add(self, generation: Generation) -> None:
        score = length_normalized(generation.log_prob, len(generation.ids), self.alpha)
        bisect.insort(self.scored, (score, generation), key=lambda item: -item[0])
        del self.scored[self.size :]

    def is_done(self, log_prob: float, max_tokens: int) -> bool:
        """Whether no extension of hypotheses with at most this ln P can still get among the best.

        ln P only falls, and as it is negative, a larger T raises the score: ln P / max_tokens^alpha bounds every score to come.
        """
        return len(self.scored) == self.size and length_normalized(log_prob, max_tokens, self.alpha) <= self.scored[-1][0]


def generate(batch: PromptBatch) -> list[list[Generation]]:
    """Hypotheses that end are complete; the others are extended. A prompt is done when none is left, or none can get among the best of its
    group.

    What is cut, at `max_tokens` or because every next token is forbidden, is complete with its ln P so far. Returns the best
    min(samples, beams) complete hypotheses of each prompt, by `length_normalized` score, best first; with groups the best of each group,
    then the second best of each, and so on, without repetitions.
    """
    settings, limit, width = batch.settings, batch.settings.max_tokens, batch.settings.beams
    groups, kept = settings.beam_groups, width // settings.beam_groups
    processor = LogitsProcessor(batch, width)
    (log_probs, state), states = batch.read(width), processor.initial_states
    device, count = log_probs.device, len(batch.prompts)
    # At first there is one hypothesis per group; -inf marks rows without one.
    totals = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)
    totals[:, ::kept] = 0.0
    ids = torch.zeros(count, width, 0, dtype=torch.long, device=device)
    size = min(settings.samples, width) if groups == 1 else kept
    best = [[_BestHypotheses(size, settings.length_penalty) for _ in range(groups)] for _ in batch.prompts]
    alive = list(range(count))
    for time in range(limit):
        masked, dead_ends = processor.mask(log_probs, ids.flatten(0, 1), states)
        if dead_ends is not None:
            _complete(dead_ends.view_as(totals) & ~totals.isneginf(), alive, ids, totals, best, finished=False)
        totals, parents, tokens = _extend(totals, masked, groups, settings.diversity)
        check_finite(totals.nan_to_num(nan=torch.inf, neginf=0.0))
        sources = (parents + torch.arange(len(alive), device=device)[:, None] * width).flatten()
        ids = torch.cat([ids.flatten(0, 1)[sources], tokens.reshape(-1, 1)], 1).unflatten(0, totals.shape)
        prompts = [prompt for prompt in alive for _ in range(width)]
        possible = ~totals.isneginf()
        ended = batch.stopping_criteria(prompts, ids.flatten(0, 1), tokens.flatten()).view_as(totals) & possible
        _complete(ended, alive, ids, totals, best, finished=True)
        if time + 1 == limit:
            _complete(possible & ~ended, alive, ids, totals, best, finished=False)
            break
        totals = totals.masked_fill(ended, -torch.inf)
        highest = totals.unflatten(1, (groups, kept)).amax(2).tolist()
        going = [
            index
            for index, prompt in enumerate(alive)
            if any(
                total > -torch.inf and not hypotheses.is_done(total, limit)
                for total, hypotheses in zip(highest[index], best[prompt], strict=True)
            )
        ]
        if not going:
            break
        indices = torch.tensor(going, device=device)
        rows = (indices[:, None] * width + torch.arange(width, device=device)).flatten()
        sources, tokens, alive = sources[rows], tokens.flatten()[rows], [alive[index] for index in going]
        totals, ids = totals[indices], ids[indices]
        states = processor.advance(states[sources], tokens)
        log_probs, state = batch.stepper.step(tokens, select_rows(state, sources))
    return [_best_of_groups(of_groups, min(settings.samples, width)) for of_groups in best]


def _extend(totals: Tensor, log_probs: Tensor, groups: int, diversity: float) -> tuple[Tensor, Tensor, Tensor]:
    """The most likely extensions of K hypotheses, as many in each group as it has hypotheses.

    Args:
        totals: [B, K] ln P of each hypothesis, -inf where there is none.
        log_probs: [B * K, V] ln P of each next id.

    Returns, each [B, K] and most likely first in each group: ln P, index of the hypothesis extended, id appended to it.
    """
    count, width = totals.shape
    if groups == 1:
        return _most_likely(totals, log_probs.view(count, width, -1), None)
    kept, parts = width // groups, []
    payments = log_probs.new_zeros(count, log_probs.shape[1])
    for group in range(groups):
        rows = slice(group * kept, (group + 1) * kept)
        new_totals, parents, tokens = _most_likely(totals[:, rows], log_probs.view(count, width, -1)[:, rows], payments)
        parts.append((new_totals, parents + group * kept, tokens))
        payments.scatter_add_(1, tokens, torch.where(new_totals.isneginf(), 0.0, diversity).to(payments.dtype))
    new_totals, parents, tokens = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
    return new_totals, parents, tokens


def _most_likely(totals: Tensor, log_probs: Tensor, payments: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The extensions of one group: `totals` [B, K], `log_probs` [B, K, V], `payments` [B, V] for each next id. Returns as `_extend`."""
    width = totals.shape[1]
    chosen_by = log_probs if payments is None else log_probs - payments[:, None]
    best, tokens = chosen_by.topk(min(width, log_probs.shape[2]), dim=-1)
    candidates, indices = (totals[:, :, None] + best.double()).flatten(1).topk(width, dim=-1)
    parents, tokens = indices // best.shape[2], tokens.flatten(1).gather(1, indices)
    if payments is not None:
        of_tokens = log_probs.flatten(1).gather(1, parents * log_probs.shape[2] + tokens)
        candidates = totals.gather(1, parents) + of_tokens.double()
    return candidates, parents, tokens


def _complete(which: Tensor, alive: list[int], ids: Tensor, totals: Tensor, best: list[list[_BestHypotheses]], finished: bool) -> None:
    """Adds the hypotheses marked in `which` [B, K], with all their ids [B, K, T], to the complete ones of their prompts and groups."""
    owners = which.nonzero().tolist()
    if owners:
        for (index, hypothesis), row, total in zip(owners, ids[which].cpu().numpy(), totals[which].tolist(), strict=True):
            of_groups = best[alive[index]]
            of_groups[hypothesis * len(of_groups) // which.shape[1]].add(Generation(row, total, finished))


def _best_of_groups(of_groups: list[_BestHypotheses], count: int) -> list[Generation]:
    """The best of each group, then the second best of each, ..., without repetitions, until there are `count`; best first."""
    chosen: dict[bytes, tuple[float, Generation]] = {}
    for same_rank in itertools.zip_longest(*(hypotheses.scored for hypotheses in of_groups)):
        for score, generation in filter(None, same_rank):
            if len(chosen) < count:
                chosen.setdefault(generation.ids.tobytes(), (score, generation))
    return [generation for _, generation in sorted(chosen.values(), key=lambda item: -item[0])]

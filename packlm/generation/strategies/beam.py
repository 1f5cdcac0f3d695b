"""Beam search (Graves 2012, section 2.4; Sutskever et al. 2014): at every step the K most likely extensions of K hypotheses are kept.

Shapes: B prompts still searched, K = `beams` hypotheses of each, V vocabulary, T tokens generated.
"""

import bisect
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
    """Hypotheses that end are complete; the others are extended. A prompt is done when none is left, or none can get among its best.

    What is cut, at `max_tokens` or because every next token is forbidden, is complete with its ln P so far. Returns the best
    min(samples, beams) complete hypotheses of each prompt, by `length_normalized` score, best first.
    """
    settings, limit, width = batch.settings, batch.settings.max_tokens, batch.settings.beams
    processor = LogitsProcessor(batch, width)
    (log_probs, state), states = batch.read(width), processor.initial_states
    device, count = log_probs.device, len(batch.prompts)
    # At first there is one hypothesis per prompt; -inf marks rows without one.
    totals = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)
    totals[:, 0] = 0.0
    ids = torch.zeros(count, width, 0, dtype=torch.long, device=device)
    best = [_BestHypotheses(min(settings.samples, width), settings.length_penalty) for _ in batch.prompts]
    alive = list(range(count))
    for time in range(limit):
        masked, dead_ends = processor.mask(log_probs, ids.flatten(0, 1), states)
        if dead_ends is not None:
            _complete(dead_ends.view_as(totals) & ~totals.isneginf(), alive, ids, totals, best, finished=False)
        totals, parents, tokens = _extend(totals, masked)
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
        highest = totals.amax(1).tolist()
        going = [
            index for index, prompt in enumerate(alive) if highest[index] > -torch.inf and not best[prompt].is_done(highest[index], limit)
        ]
        if not going:
            break
        indices = torch.tensor(going, device=device)
        rows = (indices[:, None] * width + torch.arange(width, device=device)).flatten()
        sources, tokens, alive = sources[rows], tokens.flatten()[rows], [alive[index] for index in going]
        totals, ids = totals[indices], ids[indices]
        states = processor.advance(states[sources], tokens)
        log_probs, state = batch.stepper.step(tokens, select_rows(state, sources))
    return [[generation for _, generation in hypotheses.scored] for hypotheses in best]


def _extend(totals: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The K most likely extensions of K hypotheses.

    Args:
        totals: [B, K] ln P of each hypothesis, -inf where there is none.
        log_probs: [B * K, V] ln P of each next id.

    Returns, each [B, K] and most likely first: ln P, index of the hypothesis extended, id appended to it.
    """
    count, width = totals.shape
    best, tokens = log_probs.topk(min(width, log_probs.shape[1]), dim=-1)
    candidates = (totals[:, :, None] + best.double().view(count, width, -1)).flatten(1)
    totals, indices = candidates.topk(width, dim=-1)
    return totals, indices // best.shape[1], tokens.view(count, -1).gather(1, indices)


def _complete(which: Tensor, alive: list[int], ids: Tensor, totals: Tensor, best: list[_BestHypotheses], finished: bool) -> None:
    """Adds the hypotheses marked in `which` [B, K], with all their ids [B, K, T], to the complete ones of their prompts."""
    owners = which.nonzero()[:, 0].tolist()
    if owners:
        for index, row, total in zip(owners, ids[which].cpu().numpy(), totals[which].tolist(), strict=True):
            best[alive[index]].add(Generation(row, total, finished))

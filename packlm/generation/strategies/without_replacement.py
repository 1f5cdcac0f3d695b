"""Sampling without replacement (strategy `sample` with `replacement = false`): n different sequences of each prompt.

Stochastic beam search (Kool, van Hoof and Welling 2019). With independent Gumbel noise added to ln P of every sequence, the n largest
perturbed values are such a sample, in order (Gumbel top k). Sequences cannot be enumerated; but the maximum below a node of the prefix tree
has a known distribution given that of its parent, so a beam search that samples the children's values top-down finds the same n sequences.

The random number of a node is a hash of the seed, the prompt's ids and the ids on the path to the node.

Shapes: B prompts still searched, K = n hypotheses of each, R = B * K rows, V vocabulary, T tokens generated.
"""

import numpy as np
import torch
from torch import Tensor

from packlm.config import Generate
from packlm.generation.logits_processors import LogitsProcessor
from packlm.generation.prompt_batch import Generation, PromptBatch, check_finite
from packlm.generation.sampling import filtered
from packlm.generation.stepper import select_rows
from packlm.model import hashed_dropout


def sample_without_replacement(batch: PromptBatch) -> list[list[Generation]]:
    """Samples `samples` different generations of each prompt, in the order of sampling; fewer if there are no more.

    A sequence has the probability that independent sampling gives it, logits processors and filters included; one that is cut at
    `max_tokens`, or because every next token is forbidden, is a sequence like any other.
    """
    width, limit = batch.settings.samples, batch.settings.max_tokens
    processor = LogitsProcessor(batch, width)
    (log_probs, state), states = batch.read(width), processor.initial_states
    device, count, vocab_size = log_probs.device, len(batch.prompts), log_probs.shape[1]
    keys, paths = np.repeat(batch.hash_keys, width), np.zeros(count * width, np.uint64)
    perturbed = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)  # sampling_totals and noise; -inf: no hypothesis
    perturbed[:, 0] = 0.0
    sampling_totals, totals = torch.zeros_like(perturbed), torch.zeros_like(perturbed)  # ln P of what is sampled from, and the model's own
    complete, finished = torch.zeros_like(perturbed, dtype=torch.bool), torch.zeros_like(perturbed, dtype=torch.bool)
    lengths = torch.zeros_like(perturbed, dtype=torch.long)
    ids = torch.zeros(count, width, 0, dtype=torch.long, device=device)
    alive, results = list(range(count)), [list[Generation]() for _ in batch.prompts]
    for time in range(limit):
        masked, dead_ends = processor.mask(log_probs, ids.flatten(0, 1), states)
        if dead_ends is not None:
            complete = complete | dead_ends.view_as(complete)
        child_log_probs = _filtered_log_probs(masked, batch.settings) + sampling_totals.view(-1, 1)
        uniform = torch.from_numpy(hashed_dropout.uniform(batch.seed, keys[:, None], paths[:, None], np.arange(vocab_size))).to(device)
        children = _perturbed_children(child_log_probs, perturbed.view(-1), uniform)
        # A complete hypothesis stays, as its own first child.
        unchanged = torch.full_like(children, -torch.inf)
        unchanged[:, 0] = perturbed.view(-1)
        children = torch.where(complete.view(-1, 1), unchanged, children)
        perturbed, indices = children.view(len(alive), -1).topk(width, dim=-1)
        parents, tokens = indices // vocab_size, indices % vocab_size
        sources = (parents + torch.arange(len(alive), device=device)[:, None] * width).flatten()
        was_complete, flat = complete.gather(1, parents), tokens.flatten()
        added = torch.where(was_complete, 0.0, log_probs[sources, flat].double().view_as(perturbed))
        totals = totals.gather(1, parents) + added
        sampling_totals = torch.where(
            was_complete, sampling_totals.gather(1, parents), child_log_probs[sources, flat].view_as(perturbed)
        )  # fmt: skip
        lengths = lengths.gather(1, parents) + (~was_complete).long()
        ids = torch.cat([ids.flatten(0, 1)[sources], flat[:, None]], 1).unflatten(0, perturbed.shape)
        prompts = [prompt for prompt in alive for _ in range(width)]
        ended = batch.stopping_criteria(prompts, ids.flatten(0, 1), flat).view_as(perturbed) & ~was_complete
        finished = finished.gather(1, parents) | ended
        complete = was_complete | ended
        check_finite(totals.masked_fill(perturbed.isneginf(), 0.0))
        done = ((complete | perturbed.isneginf()).all(1) | (time + 1 == limit)).tolist()
        for index, prompt in enumerate(alive):
            if done[index]:
                results[prompt] = _generations(ids[index], lengths[index], totals[index], finished[index], perturbed[index])
        going = [index for index, is_done in enumerate(done) if not is_done]
        if not going:
            break
        indices = torch.tensor(going, device=device)
        rows = (indices[:, None] * width + torch.arange(width, device=device)).flatten()
        sources, flat, alive = sources[rows], flat[rows], [alive[index] for index in going]
        perturbed, sampling_totals, totals, complete, finished, lengths, ids = (
            part[indices] for part in (perturbed, sampling_totals, totals, complete, finished, lengths, ids)
        )  # fmt: skip
        order = sources.cpu().numpy()
        keys, paths = keys[order], hashed_dropout.scramble(paths[order], flat.cpu().numpy())
        states = processor.advance(states[sources], flat)
        log_probs, state = batch.stepper.step(flat, select_rows(state, sources))
    return results


def _filtered_log_probs(log_probs: Tensor, settings: Generate) -> Tensor:
    """[R, V] float64 ln P of the filtered distribution of ln P [R, V]."""
    probabilities, ids = filtered(log_probs, settings)
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    if ids is not None:
        probabilities = torch.zeros_like(log_probs, dtype=torch.float64).scatter(-1, ids, probabilities)
    return probabilities.log()


def _perturbed_children(log_probs: Tensor, parents: Tensor, uniform: Tensor) -> Tensor:
    """Perturbed ln P of child nodes given that of their parents, which is their maximum (Kool et al. 2019, section 4.1, appendix B.3).

    Args:
        log_probs: [R, V] ln P of each child, -inf where there is none.
        parents: [R] perturbed ln P of the parents.
        uniform: [R, V] random numbers in (0, 1).

    Returns [R, V] perturbed ln P, -inf where there is no child.
    """
    gumbels = log_probs - (-uniform.log()).log()
    largest = gumbels.amax(-1, keepdim=True)
    gap = parents[:, None] - gumbels + _log1mexp(gumbels - largest)
    shifted = parents[:, None] - gap.clamp(min=0) - torch.log1p(torch.exp(-gap.abs()))
    return torch.where(log_probs.isneginf() | parents[:, None].isneginf(), -torch.inf, shifted)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0 (Maechler 2012)."""
    return torch.where(x > -0.6931471805599453, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def _generations(ids: Tensor, lengths: Tensor, totals: Tensor, finished: Tensor, perturbed: Tensor) -> list[Generation]:
    """The existing hypotheses of a prompt, in descending order of their perturbed ln P."""
    rows = zip(ids.cpu().numpy(), lengths.tolist(), totals.tolist(), finished.tolist(), perturbed.tolist(), strict=True)
    return [Generation(row[:length].copy(), total, ended) for row, length, total, ended, value in rows if value > -np.inf]

"""Continuing prompts: greedy, random and beam search over ids.

Shapes: B prompts, n generations of each, R = B * n rows, V vocabulary, T most tokens generated. Each prompt is read once, its
state then expanded to n rows. What a row generates depends on its prompt, the seed and the settings alone (to the rounding of
matrix products, whose last bits may vary with the number of rows). `log_prob` is always the model's own log P(generated tokens |
prompt), in nats: neither temperature nor filters touch it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline import dataset
from pipeline.config import Generate
from pipeline.errors import PacklmError
from train import noise
from train.model import LanguageModel
from train.recurrence import State
from train.sampling import draw

READ_AT_ONCE = 1024
"""Tokens of each prompt that are read at a time: bounds the memory an overlong prompt takes."""

COMPACT_EVERY = 8
"""Steps between two looks at which rows are finished; each look makes the processor wait for the device."""


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    ids: np.ndarray
    """The generated ids, with the `<eos>` that ended them."""
    log_prob: float
    """log P(ids | prompt) under the model, in nats."""
    finished: bool
    """Whether it ended with `<eos>`; false where it was cut at the most tokens allowed."""


def generate(
    model: LanguageModel, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, fresh_sentences: bool
) -> list[list[Generation]]:
    """Continues prompts, the likeliest continuation of each first.

    Args:
        prompts: ids to read before the first prediction, each at least the `<eos>` that every text starts after.
        settings: strategy and its parameters; `prompts` and `batch_tokens` are not looked at.
        eos: ends a generation, where `settings.stop_at_eos`.
        fresh_sentences: whether the state is zeroed after `<eos>`, as in training on single sentences.

    Returns:
        For each prompt `settings.samples` generations (one with greedy, at most `settings.beams` with beam search).

    Raises:
        PacklmError: a probability is not a number.
    """
    strategy = {"greedy": greedy, "sample": sample, "beam": beam}[settings.strategy]
    with torch.inference_mode():
        return strategy(model, prompts, settings, seed, eos, fresh_sentences)


def greedy(
    model: LanguageModel, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, fresh_sentences: bool
) -> list[list[Generation]]:
    """Takes the likeliest token at every step. Arguments as of `generate`; returns one generation a prompt."""
    return _draw(model, prompts, 1, lambda log_probs, rows, time: log_probs.argmax(-1), settings, eos, fresh_sentences)


def sample(
    model: LanguageModel, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, fresh_sentences: bool
) -> list[list[Generation]]:
    """Draws each token from the distribution that temperature, top-k and top-p leave (in this order).

    The random number of a draw is a hash of the seed, the prompt's ids, the number of the sample and the time. Arguments as of
    `generate`; returns `settings.samples` generations a prompt, ranked by log P under the model, temperature 1.
    """
    count = settings.samples
    prompt_keys = np.repeat(np.array([int(dataset.ids_digest(ids)[:16], 16) for ids in prompts], np.uint64), count)
    numbers = np.tile(np.arange(count), len(prompts))

    def choose(log_probs: Tensor, rows: Tensor, time: int) -> Tensor:
        which = rows.cpu().numpy()
        uniform = torch.from_numpy(noise.uniform(seed, prompt_keys[which], numbers[which], time)).to(log_probs.device)
        return draw(
            log_probs, uniform, settings.temperature, settings.top_k, settings.top_p, settings.min_p, settings.typical_p
        )

    return _draw(model, prompts, count, choose, settings, eos, fresh_sentences)


def beam(
    model: LanguageModel, prompts: Sequence[np.ndarray], settings: Generate, seed: int, eos: int, fresh_sentences: bool
) -> list[list[Generation]]:
    """Beam search (Graves 2012, section 2.4; Sutskever et al. 2014): of all extensions keeps the K likeliest at every step.

    A finished hypothesis keeps its place among the K as long as its log P is among the best; there is no normalisation by
    length. As log P only falls with length, a prompt is done once its best n are finished. A hypothesis cut at `max_tokens` stands
    with the log P of what it has. Arguments as of `generate`; returns the best min(samples, beams) hypotheses found.
    """
    width, wanted, limit = settings.beams, min(settings.samples, settings.beams), settings.max_tokens
    log_probs, state = read(model, prompts)
    device = log_probs.device
    count = len(prompts)
    log_probs, state = log_probs.repeat_interleave(width, 0), expand(state, width)
    # At first there is one hypothesis a prompt, so all but one of its places are impossible.
    totals = torch.full((count, width), -torch.inf, dtype=torch.float64, device=device)
    totals[:, 0] = 0.0
    finished = torch.zeros(count, width, dtype=torch.bool, device=device)
    ids = torch.zeros(count, width, limit, dtype=torch.long, device=device)
    lengths = torch.zeros(count, width, dtype=torch.long, device=device)
    alive = torch.arange(count, device=device)
    results: list[list[Generation]] = [[] for _ in prompts]
    for time in range(limit):
        totals, parents, tokens, was_finished = _extend(totals, finished, log_probs, eos)
        ids = ids.gather(1, parents[:, :, None].expand(-1, -1, limit))
        ids[:, :, time] = torch.where(was_finished, ids[:, :, time], tokens)
        lengths = lengths.gather(1, parents) + (~was_finished).long()
        finished = was_finished | (tokens == eos) if settings.stop_at_eos else was_finished
        last = time + 1 == limit
        if last or (time + 1) % COMPACT_EVERY == 0:
            _check(totals.nan_to_num(nan=torch.inf, neginf=0.0))
            settled = (finished | totals.isneginf())[:, :wanted].all(1) | last
            for place, row in enumerate(alive.tolist()):
                if settled[place]:
                    results[row] = _harvest(ids[place], lengths[place], totals[place], finished[place], wanted)
            going = (~settled).nonzero().squeeze(1)
            if not len(going):
                break
            totals, finished, ids, lengths = totals[going], finished[going], ids[going], lengths[going]
            parents, tokens, alive = parents[going], tokens[going], alive[going]
        else:
            going = torch.arange(len(alive), device=device)
        sources = (going[:, None] * width + parents).reshape(-1)
        log_probs, state = _step(model, tokens.reshape(-1), advance(state, sources), eos, fresh_sentences)
    return results


def _extend(totals: Tensor, finished: Tensor, log_probs: Tensor, eos: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The K best of all extensions of K hypotheses, finished ones standing as they are.

    Args:
        totals, finished: [B, K] log P of each hypothesis, and whether it has ended.
        log_probs: [B * K, V] log P of each next id.

    Returns, each [B, K] and best first: log P, the hypothesis extended, the id it is extended by, whether it had ended before.
    """
    count, width = totals.shape
    best, tokens = log_probs.topk(min(width, log_probs.shape[1]), dim=-1)
    candidates = totals[:, :, None] + best.double().view(count, width, -1)
    standing = torch.full_like(candidates, -torch.inf)
    standing[:, :, 0] = totals
    candidates = torch.where(finished[:, :, None], standing, candidates)
    totals, places = candidates.flatten(1).topk(width, dim=-1)
    parents = places // best.shape[1]
    was_finished = finished.gather(1, parents)
    chosen = tokens.view(count, -1).gather(1, places)
    return totals, parents, chosen.masked_fill(was_finished, eos), was_finished


def _harvest(ids: Tensor, lengths: Tensor, totals: Tensor, finished: Tensor, wanted: int) -> list[Generation]:
    """The possible ones among the first `wanted` hypotheses of a prompt, which come best first."""
    rows = zip(ids[:wanted].cpu().numpy(), lengths.tolist(), totals.tolist(), finished.tolist(), strict=False)
    return [Generation(row[:length].copy(), total, ended) for row, length, total, ended in rows if total > -np.inf]


def _draw(
    model: LanguageModel, prompts: Sequence[np.ndarray], count: int, choose: Callable[[Tensor, Tensor, int], Tensor],
    settings: Generate, eos: int, fresh_sentences: bool,
) -> list[list[Generation]]:  # fmt: skip
    """Continues each prompt `count` times, token by token: `choose(log P [R, V], rows [R], time)` -> [R] ids."""
    log_probs, state = read(model, prompts)
    device, limit = log_probs.device, settings.max_tokens
    log_probs, state = log_probs.repeat_interleave(count, 0), expand(state, count)
    rows = torch.arange(len(log_probs), device=device)
    ids = torch.zeros(len(rows), limit, dtype=torch.long, device=device)
    totals = torch.zeros(len(rows), dtype=torch.float64, device=device)
    lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
    running = torch.ones(len(rows), dtype=torch.bool, device=device)
    for time in range(limit):
        tokens = choose(log_probs, rows, time)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).double()
        going = running[rows]
        totals.index_add_(0, rows, torch.where(going, chosen, 0.0))
        lengths.index_add_(0, rows, going.long())
        ids[rows, time] = tokens
        if settings.stop_at_eos:
            running[rows] = going & (tokens != eos)
        if time + 1 == limit:
            break
        if settings.stop_at_eos and (time + 1) % COMPACT_EVERY == 0:
            places = running[rows].nonzero().squeeze(1)
            if not len(places):
                break
            rows, tokens, state = rows[places], tokens[places], advance(state, places)
        log_probs, state = _step(model, tokens, state, eos, fresh_sentences)
    _check(totals)
    drawn = zip(ids.cpu().numpy(), lengths.tolist(), totals.tolist(), running.tolist(), strict=True)
    generations = [Generation(row[:length].copy(), total, not on and settings.stop_at_eos) for row, length, total, on in drawn]
    groups = [generations[start : start + count] for start in range(0, len(generations), count)]
    return [sorted(group, key=lambda generation: -generation.log_prob) for group in groups]


def read(model: LanguageModel, prompts: Sequence[np.ndarray]) -> tuple[Tensor, State]:
    """Reads prompts of unequal length together: log P(next id), [B, V] in nats, and the state after each, on the model's device."""
    device = model.projection.weight.device
    lengths = np.array([len(ids) for ids in prompts])
    state = model.recurrence.zero_state(len(prompts))
    log_probs = state[0].new_empty(len(prompts), model.vocab_size)
    for start in range(0, int(lengths.max()), READ_AT_ONCE):
        going = np.flatnonzero(lengths > start)
        pieces = [prompts[row][start : start + READ_AT_ONCE] for row in going.tolist()]
        ids = torch.from_numpy(np.concatenate(pieces).astype(np.int64)).to(device)
        rows = torch.from_numpy(going).to(device)
        read_log_probs, after = model.read(ids, np.array([len(piece) for piece in pieces]), advance(state, rows))
        log_probs = log_probs.to(read_log_probs.dtype).index_copy(0, rows, read_log_probs)
        state = tuple(part.index_copy(1, rows, new) for part, new in zip(state, after, strict=True))
    _check(log_probs.logsumexp(-1))
    return log_probs, state


def _step(model: LanguageModel, ids: Tensor, state: State, eos: int, fresh_sentences: bool) -> tuple[Tensor, State]:
    """Reads an id of each row ([R]), from the zero state where it is the `<eos>` that a single sentence starts after."""
    if fresh_sentences:
        state = tuple(part.masked_fill((ids == eos)[None, :, None], 0.0) for part in state)
    return model.step(ids, state)


def expand(state: State, count: int) -> State:
    """Repeats each segment's state `count` times, side by side: [C, B, H] -> [C, B * count, H]."""
    return tuple(part.repeat_interleave(count, 1) for part in state)


def advance(state: State, rows: Tensor) -> State:
    """The states of the given rows, in their order."""
    return tuple(part.index_select(1, rows) for part in state)


def _check(log_probs: Tensor) -> None:
    if not bool(log_probs.isfinite().all()):
        raise PacklmError("the model gives probabilities that are not numbers: its weights are damaged, or its training diverged")

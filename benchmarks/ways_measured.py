"""One way of batching: whether its gradients are right, how fast it trains, what memory it takes, and what perplexity it reaches."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from ways import Group, PlainModel, Way, copy_weights, make_ours, named_parameters, summed_loss
from ways_data import Data

from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.dataset.views import Stream
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import ModelScorer, evaluate
from packlm.model.language_model import LanguageModel, build
from packlm.model.precision import Precision
from train.optim import optimizers

TOLERANCE = 1e-9
"""In float64, the largest difference that is still rounding, as a share of the largest gradient of a parameter."""
MARKS = (0.125, 0.25, 0.5, 1.0)
"""Where in its training a way is measured on the validation sentences, as shares of the whole."""
EVALUATION_TOKENS = 4096
"""Tokens of validation run at a time; changes nothing in the numbers."""


@dataclass(frozen=True)
class Point:
    """What a way reached on its way."""

    tokens: int
    seconds: float
    """Of training; measuring is not counted."""
    perplexity: float


@dataclass(frozen=True)
class TextCounts:
    """What came out for a way."""

    key: str
    label: str
    tokens_per_second: float
    """Median over the steps; targets, without padding."""
    fill: float
    """Targets as a share of the positions embedded, over all steps."""
    memory_bytes: int
    """Peak of training beyond what the process held before its first step."""
    steps: int
    whole: bool
    """Whether it saw all the tokens it was to see; otherwise its time was up."""
    points: list[Point]


class Positions:
    """Counts the ids that a model embeds, padding included."""

    def __init__(self, model: LanguageModel | PlainModel):
        self.count = 0
        model.embedding.register_forward_hook(self._add)

    def _add(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.count += arguments[0].numel()


class Memory:
    """The peak of a stretch of work beyond what was held when it began: of the process (Linux), or of the GPU's tensors."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is held now
            self.before = _resident("VmRSS")

    def peak(self) -> int:
        """Bytes."""
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        return peak - self.before


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def first_model(config: Config, vocab_size: int, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """The weights that all ways start from."""
    return build(config.model, vocab_size, config.run.seed).to(device, dtype)


def difference(way: Way, model: LanguageModel, group: Group) -> float:
    """How far loss and gradients of a way are from those of our model running the sequences one by one.

    The largest difference of an element of a parameter's gradient as a share of its largest element, or the loss's as a share of it.

    Args:
        model: in float64.
    """
    model.zero_grad()
    wanted = 0.0
    for inputs, targets in zip(group.inputs, group.targets, strict=True):
        loss = summed_loss(model, Group([inputs], [targets])) / group.tokens
        loss.backward()
        wanted += float(loss.detach())
    found = way.make(model)
    shares = [abs(float(way.gradients(found, group)) / wanted - 1)]
    gradients = _gradients(found)
    for name, gradient in _gradients(model).items():
        shares.append(float((gradients[name] - gradient).abs().max() / gradient.abs().max()))
    return max(shares)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in named_parameters(model).items() if parameter.grad is not None}


def check(ways: list[Way], config: Config, vocab_size: int, data: Data, device: torch.device) -> dict[str, float]:
    """The `difference` of each way on a few sequences; `PacklmError` if it is not rounding where it has to be."""
    model = first_model(config, vocab_size, device, torch.float64)
    found = {way.key: difference(way, model, data.sample(way)) for way in ways}
    for way in ways:
        if way.exact and not found[way.key] <= TOLERANCE:
            raise PacklmError(f"{way.label}: loss or gradients are off by {found[way.key]:.1e} of those one by one; the way is wrong")
    return found


def measure(way: Way, config: Config, vocab_size: int, data: Data, ranks: Ranks, tokens: int, seconds: float) -> TextCounts:
    """Trains a model from the recipe's first weights with its optimizer, at its learning rate all along and without dropout.

    Args:
        tokens, seconds: ends with the step in which it has seen so many targets, or has trained so long.

    Raises:
        PacklmError: the loss is not finite.
    """
    settings = config.train
    model = first_model(config, vocab_size, ranks.device, Precision(settings.precision, ranks.device).weights)
    trained = way.make(model)
    used = optimizers.build(settings, trained)
    positions = Positions(trained)
    # Made before, so that keeping the weights of a moment takes neither time nor memory that would count as the way's.
    kept = [make_ours(model, model.layout) for _ in MARKS]
    groups = data.groups(way)

    first = next(data.groups(way))
    way.gradients(trained, Group(first.inputs[:1], first.targets[:1]))  # libraries set themselves up in the first pass
    trained.zero_grad()
    _synchronize(ranks.device)
    positions.count = 0
    memory = Memory(ranks.device)

    seen, spent = 0, 0.0
    speeds: list[float] = []
    marks: list[tuple[int, float] | None] = []
    while len(marks) < len(MARKS):
        began = time.perf_counter()
        group = next(groups)
        trained.zero_grad()
        loss = way.gradients(trained, group)
        nn.utils.clip_grad_norm_(trained.parameters(), settings.clip or math.inf)
        for optimizer in used:
            optimizer.step()
        _synchronize(ranks.device)
        step_seconds = time.perf_counter() - began
        if not math.isfinite(float(loss)):
            raise PacklmError(f"{way.label}: the loss is {float(loss)} after {seen:,} tokens; lower train.lr or train.clip")
        seen, spent = seen + group.tokens, spent + step_seconds
        speeds.append(group.tokens / step_seconds)
        done = max(seen / tokens, spent / seconds)
        passed = sum(done >= mark for mark in MARKS)
        if passed > len(marks):
            copy_weights(trained, kept[passed - 1])
            marks += [None] * (passed - 1 - len(marks)) + [(seen, spent)]
    peak = memory.peak()

    points = []
    for mark, weights in zip(marks, kept, strict=True):
        if mark:
            points.append(Point(*mark, _perplexity(weights, data, ranks)))
    fill = seen / positions.count
    return TextCounts(way.key, way.label, median(speeds), fill, peak, len(speeds), seen >= tokens, points)


def _perplexity(model: LanguageModel, data: Data, ranks: Ranks) -> float:
    """Of the validation sentences, each from a zero state."""
    no_stream = Stream.from_arrays(data.validation.targets(0), np.zeros(1), data.validation.eos)  # sentences are measured without one
    return evaluate(ModelScorer(model), data.validation, no_stream, "sentences", 1, EVALUATION_TOKENS, ranks).perplexity


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Measures one batching method: correctness of gradients, training speed, peak memory and validation perplexity."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from batching_data import Data
from batching_methods import Group, Method, PlainModel, copy_weights, make_ours, named_parameters, summed_loss
from torch import Tensor, nn

from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.dataset.views import Stream
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import ModelScorer, evaluate
from packlm.model.language_model import LanguageModel, build
from packlm.model.precision import Precision
from train.optim import optimizers

TOLERANCE = 1e-9
"""Largest relative difference in float64 that counts as rounding."""
MARKS = (0.125, 0.25, 0.5, 1.0)
"""Fractions of the training after which validation perplexity is measured."""
EVALUATION_TOKENS = 4096
"""Validation tokens per batch; does not affect the result."""


@dataclass(frozen=True)
class Point:
    """Validation perplexity at a point of the training."""

    tokens: int
    seconds: float
    """Training time, validation excluded."""
    perplexity: float


@dataclass(frozen=True)
class Measurement:
    """The result of a method."""

    key: str
    label: str
    tokens_per_second: float
    """Targets per second, padding excluded; median over the steps."""
    fill: float
    """Targets divided by embedded positions, over all steps."""
    memory_bytes: int
    """Peak of training above what the process held before its first step."""
    steps: int
    whole: bool
    """Whether all tokens were seen before the time limit."""
    points: list[Point]


class PositionCounter:
    """Counts the ids that a model embeds, padding included."""

    def __init__(self, model: LanguageModel | PlainModel):
        self.count = 0
        model.embedding.register_forward_hook(self._add)

    def _add(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.count += arguments[0].numel()


class PeakMemory:
    """Peak memory since creation, above what was held then: resident memory of the process (Linux), or allocated GPU memory."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.before = _resident("VmRSS")

    def peak(self) -> int:
        """Bytes."""
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        return peak - self.before


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def first_model(config: Config, vocab_size: int, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """The model with the initial weights that all methods start from."""
    return build(config.model, vocab_size, config.run.seed).to(device, dtype)


def difference(method: Method, model: LanguageModel, group: Group) -> float:
    """The largest relative difference of a method's loss and gradients from those of our model running the sequences one by one.

    Differences of gradients are relative to the largest element of the parameter's gradient.

    Args:
        model: in float64.
    """
    model.zero_grad()
    reference_loss = 0.0
    for inputs, targets in zip(group.inputs, group.targets, strict=True):
        loss = summed_loss(model, Group([inputs], [targets])) / group.tokens
        loss.backward()
        reference_loss += float(loss.detach())
    compared = method.make(model)
    relative = [abs(float(method.gradients(compared, group)) / reference_loss - 1)]
    gradients = _gradients(compared)
    for name, gradient in _gradients(model).items():
        relative.append(float((gradients[name] - gradient).abs().max() / gradient.abs().max()))
    return max(relative)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in named_parameters(model).items() if parameter.grad is not None}


def check(methods: list[Method], config: Config, vocab_size: int, data: Data, device: torch.device) -> dict[str, float]:
    """The `difference` of each method on a few sequences; raises `PacklmError` where an exact method differs by more than rounding."""
    model = first_model(config, vocab_size, device, torch.float64)
    differences = {method.key: difference(method, model, data.sample(method)) for method in methods}
    for method in methods:
        if method.exact and not differences[method.key] <= TOLERANCE:
            raise PacklmError(f"{method.label}: loss or gradients are off by {differences[method.key]:.1e}, more than rounding")
    return differences


def measure(method: Method, config: Config, vocab_size: int, data: Data, ranks: Ranks, tokens: int, seconds: float) -> Measurement:
    """Trains from the recipe's initial weights with its optimizer, at a constant learning rate and without dropout.

    Args:
        tokens: stops after the step in which this many targets have been seen.
        seconds: stops after this training time.

    Raises:
        PacklmError: the loss is not finite.
    """
    settings = config.train
    model = first_model(config, vocab_size, ranks.device, Precision(settings.precision, ranks.device).weights_dtype)
    trained = method.make(model)
    method_optimizers = optimizers.build(settings, trained)
    positions = PositionCounter(trained)
    # Allocated beforehand, so that snapshots of the weights do not count in the method's time or memory.
    snapshots = [make_ours(model, model.layout) for _ in MARKS]
    groups = data.groups(method)

    first = next(data.groups(method))
    method.gradients(trained, Group(first.inputs[:1], first.targets[:1]))  # warm-up: libraries initialize in the first pass
    trained.zero_grad()
    _synchronize(ranks.device)
    positions.count = 0
    memory = PeakMemory(ranks.device)

    seen, spent = 0, 0.0
    speeds: list[float] = []
    marks: list[tuple[int, float] | None] = []
    while len(marks) < len(MARKS):
        began = time.perf_counter()
        group = next(groups)
        trained.zero_grad()
        loss = method.gradients(trained, group)
        nn.utils.clip_grad_norm_(trained.parameters(), settings.clip or math.inf)
        for optimizer in method_optimizers:
            optimizer.step()
        _synchronize(ranks.device)
        step_seconds = time.perf_counter() - began
        if not math.isfinite(float(loss)):
            raise PacklmError(f"{method.label}: the loss is {float(loss)} after {seen:,} tokens; lower train.lr or train.clip")
        seen, spent = seen + group.tokens, spent + step_seconds
        speeds.append(group.tokens / step_seconds)
        done = max(seen / tokens, spent / seconds)
        passed = sum(done >= mark for mark in MARKS)
        if passed > len(marks):
            copy_weights(trained, snapshots[passed - 1])
            marks += [None] * (passed - 1 - len(marks)) + [(seen, spent)]
    peak = memory.peak()

    points = []
    for mark, weights in zip(marks, snapshots, strict=True):
        if mark:
            points.append(Point(*mark, _perplexity(weights, data, ranks)))
    fill = seen / positions.count
    return Measurement(method.key, method.label, median(speeds), fill, peak, len(speeds), seen >= tokens, points)


def _perplexity(model: LanguageModel, data: Data, ranks: Ranks) -> float:
    """Perplexity of the validation sentences, each from a zero state."""
    no_stream = Stream.from_arrays(data.validation.targets(0), np.zeros(1), data.validation.eos)  # not used in the context `sentences`
    return evaluate(ModelScorer(model), data.validation, no_stream, "sentences", 1, EVALUATION_TOKENS, ranks).perplexity


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

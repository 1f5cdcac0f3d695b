"""Measures a batching method: correctness of gradients; speed and peak memory of a training that goes in turns; validation perplexity."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batching_data import Data
from batching_methods import Group, Method, PlainModel, copy_weights, named_parameters, summed_loss
from safetensors.torch import load_model, save_model
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
EVALUATION_TOKENS = 4096
"""Validation tokens per batch; does not affect the result."""


@dataclass(frozen=True)
class Turn:
    """The numbers of a part of a method's training."""

    tokens: int
    """Targets, padding excluded."""
    positions: int
    """Embedded ids, padding included."""
    updates: int
    seconds: float
    memory_bytes: int
    """Peak of the training so far, above what the process held before its first step."""


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


class Training:
    """Trains with a method from the recipe's initial weights, with its optimizer, at a constant learning rate and without dropout."""

    def __init__(self, method: Method, config: Config, vocab_size: int, data: Data, ranks: Ranks):
        self.method, self.settings, self.device = method, config.train, ranks.device
        self.ours = first_model(config, vocab_size, ranks.device, Precision(config.train.precision, ranks.device).weights_dtype)
        self.model = method.make(self.ours)
        self.optimizers = optimizers.build(config.train, self.model)
        self.positions = PositionCounter(self.model)
        self.groups = data.groups(method)
        self.seen, self.spent = 0, 0.0

        first = next(data.groups(method))
        method.gradients(self.model, Group(first.inputs[:1], first.targets[:1]))  # warm-up: libraries initialize in the first pass
        self.model.zero_grad()
        _synchronize(self.device)
        self.memory = PeakMemory(self.device)

    def turn(self, tokens: int, seconds: float) -> Turn:
        """Trains on until `tokens` targets have been seen in all turns, or until `seconds` of training.

        Raises:
            PacklmError: the loss is not finite.
        """
        seen, spent, updates, self.positions.count = self.seen, self.spent, 0, 0
        while self.seen < tokens and self.spent < seconds:
            began = time.perf_counter()
            group = next(self.groups)
            self.model.zero_grad()
            loss = self.method.gradients(self.model, group)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
            for optimizer in self.optimizers:
                optimizer.step()
            _synchronize(self.device)
            self.spent += time.perf_counter() - began
            self.seen += group.tokens
            updates += 1
            if not math.isfinite(float(loss)):
                raise PacklmError(
                    f"{self.method.label}: the loss is {float(loss)} after {self.seen:,} tokens; lower train.lr or train.clip"
                )
        return Turn(self.seen - seen, self.positions.count, updates, self.spent - spent, self.memory.peak())

    def save(self, path: Path) -> None:
        """Saves the weights, by the names of our model."""
        copy_weights(self.model, self.ours)
        save_model(self.ours, str(path))


def perplexity(model: LanguageModel, weights: Path, data: Data, ranks: Ranks) -> float:
    """Perplexity of the validation sentences, each from a zero state, with the weights of a file (`Training.save`)."""
    load_model(model, weights)
    no_stream = Stream.from_arrays(data.validation.targets(0), np.zeros(1), data.validation.eos)  # not used in the context `sentences`
    return evaluate(ModelScorer(model), data.validation, no_stream, "sentences", 1, EVALUATION_TOKENS, ranks).perplexity


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

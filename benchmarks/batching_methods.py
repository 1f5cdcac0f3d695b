"""Batching methods: how sequences of unequal length run through a recurrent language model. Each accumulates gradients in `.grad`.

Ours are the layouts of `packlm.model.recurrence`; the plain ones use torch's modules alone.

Shapes: B sequences, T time steps of the longest, P tokens in all sequences, H units, V vocabulary; tensors are time-major.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from packlm import config
from packlm.base.errors import RequestError
from packlm.model.language_model import Batch, LanguageModel, build
from packlm.model.recurrence import Layout

MASKED = -100
"""`ignore_index` of `cross_entropy`."""
FIXED_LAYOUT: Layout = "auto"
"""Layout of the fixed rows: the fastest one; rows are equally long, so there is no padding."""

PLAIN: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "rnn": (nn.RNN, nn.RNNCell),
    "rnn_relu": (partial(nn.RNN, nonlinearity="relu"), partial(nn.RNNCell, nonlinearity="relu")),
    "gru": (nn.GRU, nn.GRUCell),
    "lstm": (nn.LSTM, nn.LSTMCell),
}
"""`model.cell` -> torch's modules for a layer over whole sequences, and for one time step."""


@dataclass(frozen=True)
class Group:
    """The sequences of one training step."""

    inputs: list[np.ndarray]
    """Ids read by each sequence; a sentence reads `<eos>` first."""
    targets: list[np.ndarray]
    """Ids predicted by each sequence."""

    @property
    def tokens(self) -> int:
        """P: the number of targets, without padding."""
        return sum(map(len, self.targets))


@dataclass(frozen=True)
class Method:
    """A batching method."""

    key: str
    label: str
    batches: Literal["close", "equal", "rows"]
    """Sentences of similar length (`SentencePlan`), of exactly one length, or fixed rows."""
    make: Callable[[LanguageModel], Any]
    """Makes the model of this method, with the weights of the given one."""
    gradients: Callable[[Any, Group], Tensor]
    """Runs forward and backward; returns the loss, in nats per token (detached)."""
    exact: bool = True
    """Whether loss and gradients equal those of the sequences run one by one."""


class PlainModel(nn.Module):
    """Embedding, a stack of torch's recurrent modules, linear layer."""

    def __init__(self, settings: config.Model, vocab_size: int, by_step: bool):
        """`by_step`: layers are cells (`nn.LSTMCell`) instead of modules over sequences (`nn.LSTM`)."""
        super().__init__()
        shapes = list(zip((settings.embedding_width, *settings.widths[:-1]), settings.widths, strict=True))
        module, residual = plain_modules(settings.cell)[by_step], settings.residual != "none"
        self.embedding = nn.Embedding(vocab_size, settings.embedding_width)
        self.layers = nn.ModuleList(module(i, h) for i, h in shapes)
        self.shortcuts = nn.ModuleList(nn.Identity() if i == h else nn.Linear(i, h, bias=False) for i, h in shapes if residual)
        self.projection = nn.Linear(settings.widths[-1], vocab_size)
        if settings.tied:
            self.projection.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [T, B] -> logits [T, B, V]."""
        rows = self.embedding(ids)
        for number, layer in enumerate(self.layers):
            outputs, _ = layer(rows)
            rows = self.add_input(number, outputs, rows)
        return self.projection(rows)

    def add_input(self, layer: int, outputs: Tensor, inputs: Tensor) -> Tensor:
        """The outputs of a layer, with its residual connection if there are any."""
        return outputs + self.shortcuts[layer](inputs) if self.shortcuts else outputs


def plain_modules(cell: str) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """The entry of `PLAIN`; raises `RequestError` for a cell that torch has no module for."""
    if cell not in PLAIN:
        raise RequestError(f"model.cell: torch has no module for {cell!r} to compare with; choose one of {', '.join(PLAIN)}")
    return PLAIN[cell]


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by the names that our model and both kinds of `PlainModel` share."""
    return {name.removeprefix("recurrence.").removesuffix("_l0"): parameter for name, parameter in model.named_parameters()}


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies the weights of a model to another of the same shape."""
    weights = named_parameters(source)
    for name, parameter in named_parameters(target).items():
        parameter.copy_(weights[name])


def make_plain(model: LanguageModel, by_step: bool = False) -> PlainModel:
    """A plain model with the same weights."""
    weight = model.embedding.weight
    plain = PlainModel(model.settings, model.vocab_size, by_step).to(weight.device, weight.dtype)
    copy_weights(model, plain)
    return plain


def make_ours(model: LanguageModel, layout: Layout) -> LanguageModel:
    """Our model in the given layout, with the same weights."""
    weight = model.embedding.weight
    ours = build(model.settings, model.vocab_size, 0, layout).to(weight.device, weight.dtype)
    copy_weights(model, ours)
    return ours


def one_by_one(model: PlainModel, group: Group) -> Tensor:
    """Method 1: batch size 1, gradients accumulated."""
    losses = []
    for inputs, targets in zip(_tensors(model, group.inputs), _tensors(model, group.targets), strict=True):
        loss = F.cross_entropy(model(inputs[:, None]).squeeze(1), targets, reduction="sum") / group.tokens
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def equal_lengths(model: PlainModel, group: Group) -> Tensor:
    """Method 2: sequences of equal length, stacked to a matrix."""
    inputs, targets = (torch.stack(_tensors(model, arrays), 1) for arrays in (group.inputs, group.targets))
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


def padded(model: PlainModel, group: Group) -> Tensor:
    """Method 3: padded with `<eos>` to the longest; the padding counts in the loss."""
    eos = int(group.inputs[0][0])
    inputs, targets = (pad_sequence(_tensors(model, arrays), padding_value=eos) for arrays in (group.inputs, group.targets))
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


def padded_masked(model: PlainModel, group: Group) -> Tensor:
    """Method 4: padded to the longest; the padding runs through all layers and the softmax, and is masked in the loss."""
    inputs = pad_sequence(_tensors(model, group.inputs))
    targets = pad_sequence(_tensors(model, group.targets), padding_value=MASKED)
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=MASKED))


def cell_by_step(model: PlainModel, group: Group) -> Tensor:
    """Method 5: one time step at a time; sequences are sorted by length, so that those that have not ended come first."""
    order = sorted(range(len(group.targets)), key=lambda b: -len(group.targets[b]))
    inputs = pad_sequence(_tensors(model, [group.inputs[b] for b in order]))
    targets = pad_sequence(_tensors(model, [group.targets[b] for b in order]))
    outputs, step_targets = [], []
    states: list[Any] = [None] * len(model.layers)
    for step in range(len(inputs)):
        running = sum(len(sequence) > step for sequence in group.targets)
        rows = model.embedding(inputs[step, :running])
        for number, cell in enumerate(model.layers):
            states[number] = cell(rows, _first(states[number], running))
            rows = model.add_input(number, states[number][0] if isinstance(states[number], tuple) else states[number], rows)
        outputs.append(rows)
        step_targets.append(targets[step, :running])
    return _backward(F.cross_entropy(model.projection(torch.cat(outputs)), torch.cat(step_targets)))


def packed_as_usual(model: PlainModel, group: Group) -> Tensor:
    """Method 5b: packed sequences as in tutorials: pad, embed, pack, run, pad again, project everything, mask."""
    inputs = pad_sequence(_tensors(model, group.inputs))
    targets = pad_sequence(_tensors(model, group.targets), padding_value=MASKED)
    packed = pack_padded_sequence(model.embedding(inputs), torch.tensor([*map(len, group.inputs)]), enforce_sorted=False)
    for number, layer in enumerate(model.layers):
        outputs, _ = layer(packed)
        rows = model.add_input(number, outputs.data, packed.data)
        packed = PackedSequence(rows, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    rows, _ = pad_packed_sequence(packed)
    return _backward(F.cross_entropy(model.projection(rows).flatten(0, 1), targets.flatten(), ignore_index=MASKED))


def ours(model: LanguageModel, group: Group) -> Tensor:
    """Our model, in its layout."""
    return _backward(summed_loss(model, group) / group.tokens)


def summed_loss(model: LanguageModel, group: Group) -> Tensor:
    """The summed NLL of all sequences under our model, in nats."""
    inputs, targets = (torch.cat(_tensors(model, arrays)) for arrays in (group.inputs, group.targets))
    sums, _ = model(Batch(inputs, targets, np.array([*map(len, group.targets)]), None, return_state=False))
    return sums.nll


def _tensors(model: nn.Module, arrays: list[np.ndarray]) -> list[Tensor]:
    device = next(model.parameters()).device
    return [torch.from_numpy(array.astype(np.int64)).to(device) for array in arrays]


def _backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss.detach()


def _first(state: Any, running: int) -> Any:
    """The states of the first `running` sequences: (h, c) for an LSTM, else h."""
    if state is None or isinstance(state, Tensor):
        return state if state is None else state[:running]
    return tuple(part[:running] for part in state)


METHODS = {
    method.key: method
    for method in (
        Method("one-by-one", "1  one by one", "close", make_plain, one_by_one),
        Method("equal-lengths", "2  equal lengths only", "equal", make_plain, equal_lengths),
        Method("padded", "3  padded, no mask", "close", make_plain, padded, exact=False),
        Method("padded-masked", "4  padded, masked", "close", make_plain, padded_masked),
        Method("cell-by-step", "5  a cell, step by step", "close", partial(make_plain, by_step=True), cell_by_step),
        Method("packed-as-usual", "5b packed, as in tutorials", "close", make_plain, packed_as_usual),
        *(Method(f"ours-{layout}", f"ours, {layout}", "close", partial(make_ours, layout=layout), ours) for layout in get_args(Layout)),
        Method("fixed-rows", "fixed rows", "rows", partial(make_ours, layout=FIXED_LAYOUT), ours),
    )
}
BASELINE = "fixed-rows"
"""The method whose speed the others are compared with."""

"""Ways to run sequences of unequal length through a recurrent language model, each leaving its gradients in the model.

Ours are the layouts of `packlm.model.recurrence`. The plain ones are written with torch's modules, as one would without this project.

Shapes: B sequences, T time steps of the longest, P tokens of all of them, H units, V vocabulary; time comes before batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from packlm import config
from packlm.base.errors import RequestError
from packlm.model.language_model import Batch, LanguageModel, build
from packlm.model.recurrence import Layout

MASKED = -100
"""The target that `cross_entropy` leaves out."""
FIXED_LAYOUT: Layout = "auto"
"""How fixed rows run: in the fastest layout, without padding since all rows are equally long."""

PLAIN: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "rnn": (nn.RNN, nn.RNNCell),
    "rnn_relu": (partial(nn.RNN, nonlinearity="relu"), partial(nn.RNNCell, nonlinearity="relu")),
    "gru": (nn.GRU, nn.GRUCell),
    "lstm": (nn.LSTM, nn.LSTMCell),
}
"""`model.cell` -> torch's modules of a layer over whole sequences, and of one time step."""


@dataclass(frozen=True)
class Group:
    """The sequences of a step."""

    inputs: list[np.ndarray]
    """Ids read by each sequence; a sentence reads `<eos>` first."""
    targets: list[np.ndarray]
    """Ids predicted by each."""

    @property
    def tokens(self) -> int:
        """P: what is to be predicted, without padding."""
        return sum(map(len, self.targets))


@dataclass(frozen=True)
class Way:
    """A way to batch."""

    key: str
    label: str
    batches: Literal["close", "equal", "rows"]
    """Sentences of close lengths (`SentencePlan`), of exactly one length, or fixed rows."""
    make: Callable[[LanguageModel], Any]
    """The model of this way, with weights equal to those of the one given."""
    gradients: Callable[[Any, Group], Tensor]
    """Adds the gradients of a step to the model's; returns the loss they are of, in nats per token (detached)."""
    exact: bool = True
    """Whether loss and gradients are to be those of running the sequences one by one."""


class PlainModel(nn.Module):
    """Embedding, a stack of torch's recurrent modules, linear layer."""

    def __init__(self, settings: config.Model, vocab_size: int, by_step: bool):
        """`by_step`: the layers are cells (`nn.LSTMCell`) instead of modules over sequences (`nn.LSTM`)."""
        super().__init__()
        inputs = (settings.embedding_width, *settings.widths[:-1])
        module = plain_modules(settings.cell)[by_step]
        self.embedding = nn.Embedding(vocab_size, settings.embedding_width)
        self.layers = nn.ModuleList(module(i, h) for i, h in zip(inputs, settings.widths, strict=True))
        self.projection = nn.Linear(settings.widths[-1], vocab_size)
        if settings.tied:
            self.projection.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [T, B] -> logits [T, B, V]."""
        rows = self.embedding(ids)
        for layer in self.layers:
            rows, _ = layer(rows)
        return self.projection(rows)


def plain_modules(cell: str) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """The entry of `PLAIN`; `RequestError` for a cell that torch has no module for."""
    if cell not in PLAIN:
        raise RequestError(f"model.cell: torch has no module for {cell!r} to compare with; there are {', '.join(PLAIN)}")
    return PLAIN[cell]


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by names that ours and both kinds of `PlainModel` share."""
    return {name.removeprefix("recurrence.").removesuffix("_l0"): parameter for name, parameter in model.named_parameters()}


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Gives a model the weights of another of the same shape."""
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
    """Our model in a layout, with the same weights."""
    weight = model.embedding.weight
    ours = build(model.settings, model.vocab_size, 0, layout).to(weight.device, weight.dtype)
    copy_weights(model, ours)
    return ours


def one_by_one(model: PlainModel, group: Group) -> Tensor:
    """Way 1: batches of one, gradients added up."""
    losses = []
    for inputs, targets in zip(_tensors(model, group.inputs), _tensors(model, group.targets), strict=True):
        loss = F.cross_entropy(model(inputs[:, None]).squeeze(1), targets, reduction="sum") / group.tokens
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def equal_lengths(model: PlainModel, group: Group) -> Tensor:
    """Way 2: the sequences are equally long, so they are a matrix."""
    inputs, targets = (torch.stack(_tensors(model, arrays), 1) for arrays in (group.inputs, group.targets))
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


def padded(model: PlainModel, group: Group) -> Tensor:
    """Way 3: padded with `<eos>` to the longest, and the padding is learned like text."""
    eos = int(group.inputs[0][0])
    inputs, targets = (pad_sequence(_tensors(model, arrays), padding_value=eos) for arrays in (group.inputs, group.targets))
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


def padded_masked(model: PlainModel, group: Group) -> Tensor:
    """Way 4: padded to the longest; the padding runs through everything, but is left out of the loss."""
    inputs = pad_sequence(_tensors(model, group.inputs))
    targets = pad_sequence(_tensors(model, group.targets), padding_value=MASKED)
    return _backward(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=MASKED))


def cell_by_step(model: PlainModel, group: Group) -> Tensor:
    """Way 5: the tensors of each time step, of the sequences that still run; longest first, so that these are the first ones."""
    order = sorted(range(len(group.targets)), key=lambda b: -len(group.targets[b]))
    inputs = pad_sequence(_tensors(model, [group.inputs[b] for b in order]))
    targets = pad_sequence(_tensors(model, [group.targets[b] for b in order]))
    outputs, wanted = [], []
    states: list[Any] = [None] * len(model.layers)
    for step in range(len(inputs)):
        running = sum(len(sequence) > step for sequence in group.targets)
        rows = model.embedding(inputs[step, :running])
        for number, cell in enumerate(model.layers):
            states[number] = cell(rows, _first(states[number], running))
            rows = states[number][0] if isinstance(states[number], tuple) else states[number]
        outputs.append(rows)
        wanted.append(targets[step, :running])
    return _backward(F.cross_entropy(model.projection(torch.cat(outputs)), torch.cat(wanted)))


def packed_as_usual(model: PlainModel, group: Group) -> Tensor:
    """Way 5b: packed sequences as tutorials have them: pad, embed, pack, run, pad again, project all, mask."""
    inputs = pad_sequence(_tensors(model, group.inputs))
    targets = pad_sequence(_tensors(model, group.targets), padding_value=MASKED)
    packed = pack_padded_sequence(model.embedding(inputs), torch.tensor([*map(len, group.inputs)]), enforce_sorted=False)
    for layer in model.layers:
        packed, _ = layer(packed)
    rows, _ = pad_packed_sequence(packed)
    return _backward(F.cross_entropy(model.projection(rows).flatten(0, 1), targets.flatten(), ignore_index=MASKED))


def ours(model: LanguageModel, group: Group) -> Tensor:
    """Our model, in its layout."""
    return _backward(summed_loss(model, group) / group.tokens)


def summed_loss(model: LanguageModel, group: Group) -> Tensor:
    """The summed loss of all sequences in our model, in nats."""
    inputs, targets = (torch.cat(_tensors(model, arrays)) for arrays in (group.inputs, group.targets))
    sums, _ = model(Batch(inputs, targets, np.array([*map(len, group.targets)]), None, carry=False))
    return sums.nll


def _tensors(model: nn.Module, arrays: list[np.ndarray]) -> list[Tensor]:
    device = next(model.parameters()).device
    return [torch.from_numpy(array.astype(np.int64)).to(device) for array in arrays]


def _backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss.detach()


def _first(state: Any, running: int) -> Any:
    """The states of the first `running` sequences: of an LSTM (h, c), else h."""
    if state is None or isinstance(state, Tensor):
        return state if state is None else state[:running]
    return tuple(part[:running] for part in state)


WAYS = {
    way.key: way
    for way in (
        Way("one-by-one", "1  one by one", "close", make_plain, one_by_one),
        Way("equal-lengths", "2  equal lengths only", "equal", make_plain, equal_lengths),
        Way("padded", "3  padded, no mask", "close", make_plain, padded, exact=False),
        Way("padded-masked", "4  padded, masked", "close", make_plain, padded_masked),
        Way("cell-by-step", "5  a cell, step by step", "close", partial(make_plain, by_step=True), cell_by_step),
        Way("packed-as-usual", "5b packed, as in tutorials", "close", make_plain, packed_as_usual),
        *(Way(f"ours-{layout}", f"ours, {layout}", "close", partial(make_ours, layout=layout), ours) for layout in get_args(Layout)),
        Way("fixed-rows", "fixed rows", "rows", partial(make_ours, layout=FIXED_LAYOUT), ours),
    )
}
YARDSTICK = "fixed-rows"
"""The way whose speed the others are measured against."""

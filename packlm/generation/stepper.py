"""The model one token at a time, every row with the same bits whatever rows run beside it.

The last bits of a matrix product may depend on how many rows it has and where in it a row stands. So rows run in blocks of a few widths,
filled up with zeros, and before the first one it is tried on this device, with these weights and as many threads, at which widths a
row has the bits that it has in the widest block, at either end of it. Of those the narrowest that holds the rows is taken, so one prompt
does not pay for 64. Were a row's bits to depend on its place even there, every row would run alone: slow, and still exact.

Two more things keep bits in place: weights are transposed once (kernels for tiny products of the other layout do depend on the place; and
it is faster), and the logistic function is made of tanh (torch's own takes another path for the elements that do not fill a vector,
wherever those happen to lie). Prompts are read in the same way, one token of each at a time.

Shapes: B prompts, R rows, W rows of a block, V vocabulary, I input width, H units, C parts of a state (`packlm.model.recurrence`).
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from packlm.model.language_model import LanguageModel
from packlm.model.quantized import QuantizedModel
from packlm.model.recurrence import State

log = logging.getLogger("packlm")

WIDTHS = (4, 8, 16, 32, 64)
"""Rows of a block."""


class Stepper:
    """A model's weights laid out for reading one id of each row. What it computes is that of `LanguageModel.step`, to rounding."""

    def __init__(self, model: LanguageModel, restart_after: int | None = None):
        """`restart_after`: an id (`<eos>`) after which a row goes on from the zero state, as after single sentences."""
        self.model, self.restart_after = model, restart_after
        self.bias = model.projection.bias.detach()
        self.layers: list[_StepWeights] = []
        """None of a model in another precision, which steps by itself."""
        if not isinstance(model, QuantizedModel):
            self.layers = [_StepWeights(layer) for layer in model.recurrence.layers]
            self.projection = _transposed(model.projection.weight)
        self._steady: dict[int, tuple[int, ...]] = {}

    @property
    def device(self) -> torch.device:
        return self.bias.device

    def read(self, prompts: Sequence[np.ndarray]) -> tuple[Tensor, State]:
        """Reads prompts of any lengths: log P(next id), [B, V] in nats, and the state after each."""
        order = np.argsort([-len(ids) for ids in prompts], kind="stable")
        lengths = np.array([len(prompts[row]) for row in order])
        ids = np.zeros((len(prompts), lengths[0]), np.int64)
        for place, row in enumerate(order.tolist()):
            ids[place, : lengths[place]] = prompts[row]
        tokens = torch.from_numpy(ids).to(self.device)
        state = self.model.recurrence.zero_state(len(prompts))
        for time in range(int(lengths[0]) - 1):
            going = int((lengths > time + 1).sum())  # what reads its last id does so below, where its log P is wanted
            _, after = self._run(tokens[:going, time], tuple(part[:, :going] for part in state), wanted=False)
            for part, new in zip(state, after, strict=True):
                part[:, :going] = new
        back = torch.from_numpy(np.argsort(order)).to(self.device)
        last = tokens[torch.arange(len(prompts)), torch.from_numpy(lengths - 1)]
        log_probs, state = self._run(last.index_select(0, back), advance(state, back), wanted=True)
        assert log_probs is not None
        return log_probs, state

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads an id of each row, [R]: log P(next id), [R, V] in nats, and the states after it."""
        if self.restart_after is not None:
            state = tuple(part.masked_fill((ids == self.restart_after)[None, :, None], 0.0) for part in state)
        log_probs, state = self._run(ids, state, wanted=True)
        assert log_probs is not None
        return log_probs, state

    def _run(self, ids: Tensor, state: State, wanted: bool) -> tuple[Tensor | None, State]:
        """Any number of rows, in blocks; log P of the next ids where they are `wanted`."""
        widths, found, states, start = self.steady_widths(), [], [], 0
        while start < len(ids):
            rows = min(len(ids) - start, widths[-1])
            width = next(width for width in widths if width >= rows)
            parts = tuple(_filled(part[:, start : start + rows], width, 1) for part in state)
            log_probs, after = self._block(_filled(ids[start : start + rows], width, 0), parts, wanted)
            if log_probs is not None:
                found.append(log_probs[:rows])
            states.append(tuple(part[:, :rows] for part in after))
            start += rows
        return torch.cat(found) if wanted else None, tuple(torch.cat(parts, 1) for parts in zip(*states, strict=True))

    def _block(self, ids: Tensor, state: State, wanted: bool) -> tuple[Tensor | None, State]:
        """One block: ids [W], for each layer [C, W, H]."""
        if not self.layers:
            return self.model.step(ids, state)
        rows, after, cell = self.model.embedding(ids), [], self.model.recurrence.cell
        for layer, before in zip(self.layers, state, strict=True):
            rows, part = cell.step(layer, cell.project(layer, rows), before)
            after.append(part)
        if not wanted:
            return None, tuple(after)
        return F.log_softmax(torch.addmm(self.bias, rows, self.projection), dim=-1), tuple(after)

    def steady_widths(self) -> tuple[int, ...]:
        """The widths of a block, rising, that all give a row the same bits, at every place tried; with the threads now in use."""
        threads = torch.get_num_threads()
        if threads not in self._steady:
            self._steady[threads] = self._try_widths()
        return self._steady[threads]

    def _try_widths(self) -> tuple[int, ...]:
        widest, generator = WIDTHS[-1], torch.Generator().manual_seed(1)
        ids = torch.randint(self.model.vocab_size, (widest,), generator=generator).to(self.device)
        state = tuple(torch.randn(part.shape, generator=generator).to(part) for part in self.model.recurrence.zero_state(widest))
        expected = self._bits(ids, state)
        if bool(expected.isnan().any()):
            return WIDTHS  # such a model is an error wherever it is used
        for shift in (1, widest // 2 + 1):
            if not torch.equal(self._bits(ids.roll(shift), tuple(part.roll(shift, 1) for part in state)), expected.roll(shift, 0)):
                log.info("the bits of a row depend on its place in a product here: rows run one by one, which is slow")
                return (1,)
        steady = []
        for width in WIDTHS:
            parts = [slice(start, start + width) for start in (0, widest - width)]
            if all(torch.equal(self._bits(ids[part], tuple(own[:, part] for own in state)), expected[part]) for part in parts):
                steady.append(width)
        return tuple(steady)

    def _bits(self, ids: Tensor, state: State) -> Tensor:
        """[W, ...] all that a block computes of each row."""
        width = len(ids)
        log_probs, after = self._block(_filled(ids, width, 0), tuple(_filled(part, width, 1) for part in state), wanted=True)
        assert log_probs is not None
        return torch.cat([log_probs, *(part.transpose(0, 1).flatten(1) for part in after)], 1)


class _StepWeights:
    """The weights of a layer (`cell.Products`), laid out for products of a few rows."""

    def __init__(self, layer: torch.nn.Module):
        self._tensors = {name: _transposed(weight) if weight.ndim == 2 else weight.detach() for name, weight in layer.named_parameters()}

    def affine(self, rows: Tensor, weight: str, bias: str | None = None) -> Tensor:
        transposed = self._tensors[weight]
        return rows @ transposed if bias is None else torch.addmm(self._tensors[bias], rows, transposed)

    def sigmoid(self, rows: Tensor) -> Tensor:
        return torch.tanh(rows * 0.5) * 0.5 + 0.5


def expand(state: State, count: int) -> State:
    """Repeats each row's state `count` times, side by side: [C, B, H] -> [C, B * count, H]."""
    return tuple(part.repeat_interleave(count, 1) for part in state)


def advance(state: State, rows: Tensor) -> State:
    """The states of the given rows, in their order."""
    return tuple(part.index_select(1, rows) for part in state)


def _transposed(weight: Tensor) -> Tensor:
    return weight.detach().T.contiguous()


def _filled(part: Tensor, width: int, axis: int) -> Tensor:
    """Rows along an axis filled up with zeros, in memory of their own (whose alignment is always the same)."""
    shape = list(part.shape)
    shape[axis] = width
    full = part.new_zeros(shape)
    full.narrow(axis, 0, part.shape[axis]).copy_(part)
    return full

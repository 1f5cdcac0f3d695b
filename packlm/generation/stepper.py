"""Single-token steps of a model that are batch-invariant: a row's results have the same bits whatever other rows run beside it.

The last bits of a matrix product may depend on the number of rows and on the position of a row among them. So rows run in blocks of a few
widths, padded with zeros. Before the first step the stepper finds out, on this device, with these weights and as many threads, at which
widths a row has the bits that it has in the widest block, in the first and the last rows of it. Of those widths the narrowest that holds
the rows is used, so a single prompt is not padded to 64. If even in the widest block the bits depended on the position, every row would
run alone: slow, and still exact.

Two more things matter: weights are laid out once for products of a few rows (torch's product with a transposed view does depend on the
position, and is slower), and the sigmoid is computed by tanh (torch's own takes another code path for the elements that do not fill a
vector register). Prompts are read in the same way, one token of each at a time.

Shapes: B prompts, R rows, W rows of a block, V vocabulary, I input width, C x S the state of a segment (`packlm.model.recurrence`).
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from packlm.interpolation.model import InterpolatedModel
from packlm.model.language_model import LanguageModel
from packlm.model.products import FixedWeight
from packlm.model.quantized import QuantizedModel
from packlm.model.recurrence import State
from packlm.model.softmax.full import Logits

log = logging.getLogger("packlm")

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a block."""


class Stepper:
    """Computes what `LanguageModel.step` computes, to rounding, and batch-invariant."""

    def __init__(self, model: LanguageModel, restart_after: int | None = None):
        """`restart_after`: an id (`<eos>`) after which a row continues from the zero state, as models of single sentences do."""
        self.restart_after = restart_after
        self.interpolated = model if isinstance(model, InterpolatedModel) else None
        self.model, *further = model.networks if isinstance(model, InterpolatedModel) else (model,)
        """The network, of an interpolated model the first."""
        self.further = [Stepper(network) for network in further]
        self.layers: list[_StepWeights] = []
        """Empty for a quantized model, which has a step of its own."""
        self.shortcuts: list[Callable[[Tensor], Tensor]] = []
        self.logits: Logits = self.model.projection
        if not isinstance(self.model, QuantizedModel):
            self.layers = [_StepWeights(layer) for layer in self.model.recurrence.layers]
            self.shortcuts = [_step_shortcut(shortcut) for shortcut in self.model.recurrence.shortcuts]
            self.logits = self.model.projection.logits_by(FixedWeight)
        self._widths: dict[int, tuple[int, ...]] = {}

    @property
    def device(self) -> torch.device:
        return self.model.embedding.weight.device

    def read(self, prompts: Sequence[np.ndarray]) -> tuple[Tensor, State]:
        """Reads prompts of any lengths: log P(next id), [B, V] in nats, and the state after each."""
        order = np.argsort([-len(ids) for ids in prompts], kind="stable")
        lengths = np.array([len(prompts[row]) for row in order])
        ids = np.zeros((len(prompts), lengths[0]), np.int64)
        for index, row in enumerate(order.tolist()):
            ids[index, : lengths[index]] = prompts[row]
        tokens = torch.from_numpy(ids).to(self.device)
        state = (self.interpolated or self.model).zero_state(len(prompts))
        for time in range(int(lengths[0]) - 1):
            running = int((lengths > time + 1).sum())  # rows but for those at their last id, which all read it at the end
            _, after = self._run(tokens[:running, time], tuple(part[:, :running] for part in state), need_log_probs=False)
            for part, new in zip(state, after, strict=True):
                part[:, :running] = new
        unsorted = torch.from_numpy(np.argsort(order)).to(self.device)
        last = tokens[torch.arange(len(prompts)), torch.from_numpy(lengths - 1)]
        log_probs, state = self._run(last.index_select(0, unsorted), select_rows(state, unsorted))
        assert log_probs is not None
        return log_probs, state

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads an id of each row, [R]: log P(next id), [R, V] in nats, and the states after it."""
        if self.restart_after is not None:
            state = tuple(part.masked_fill((ids == self.restart_after)[None, :, None], 0.0) for part in state)
        log_probs, state = self._run(ids, state)
        assert log_probs is not None
        return log_probs, state

    def step_layers(self, ids: Tensor, state: State) -> tuple[Tensor, State, list[Tensor]]:
        """`step`, which also returns the embedding and the output of each layer, [R, I] and [R, H]."""
        blocks: list[list[Tensor]] = []
        log_probs, after = self._run(ids, state, layers=blocks)
        assert log_probs is not None
        return log_probs, after, [torch.cat(parts)[: len(ids)] for parts in zip(*blocks, strict=True)]

    def _run(
        self, ids: Tensor, state: State, need_log_probs: bool = True, layers: list[list[Tensor]] | None = None
    ) -> tuple[Tensor | None, State]:  # fmt: skip
        """Runs any number of rows; log P of the next ids only if needed. Appends the layers' outputs of blocks of rows to `layers`."""
        if self.interpolated is None:
            return self._run_network(ids, state, need_log_probs, layers)
        (of_first, *of_further), of_components = self.interpolated.split_state(state)
        layers = [] if layers is None else layers
        runs = [self._run_network(ids, of_first, need_log_probs, layers)]
        runs += [each._run_network(ids, before, need_log_probs, None) for each, before in zip(self.further, of_further, strict=True)]
        rows = torch.cat([outputs[-1] for outputs in layers])
        of_networks = [log_probs for log_probs, _ in runs if log_probs is not None]
        mixed, others = self.interpolated.step_components(ids, rows, of_networks or None, of_components)
        return mixed, (*(part for _, after in runs for part in after), *others)

    def _run_network(
        self, ids: Tensor, state: State, need_log_probs: bool, layers: list[list[Tensor]] | None
    ) -> tuple[Tensor | None, State]:  # fmt: skip
        """`_run` of the network alone, in blocks."""
        widths, log_probs, states, start = self.invariant_widths(), [], [], 0
        while start < len(ids):
            rows = min(len(ids) - start, widths[-1])
            width = next(width for width in widths if width >= rows)
            parts = tuple(_padded(part[:, start : start + rows], width, 1) for part in state)
            outputs, after = self._block(_padded(ids[start : start + rows], width, 0), parts)
            block_log_probs = self._log_probs(outputs[-1]) if need_log_probs else None
            if layers is not None:
                layers.append([output[:rows] for output in outputs])
            if block_log_probs is not None:
                log_probs.append(block_log_probs[:rows])
            states.append(tuple(part[:, :rows] for part in after))
            start += rows
        if len(states) == 1:
            return log_probs[0] if need_log_probs else None, states[0]
        return torch.cat(log_probs) if need_log_probs else None, tuple(torch.cat(parts, 1) for parts in zip(*states, strict=True))

    def _block(self, ids: Tensor, state: State) -> tuple[list[Tensor], State]:
        """Runs one block: ids [W], state of each layer [C, W, S] -> embeddings and the outputs of each layer, and the states."""
        if not self.layers:
            return self.model.layers(ids, np.ones(len(ids), np.int64), state)
        outputs, after, cell = [self.model.embedding(ids)], [], self.model.recurrence.cell
        for number, (layer, before) in enumerate(zip(self.layers, state, strict=True)):
            rows, part = cell.step(layer, cell.project(layer, outputs[-1]), before)
            outputs.append(rows + self.shortcuts[number](outputs[-1]) if self.shortcuts else rows)
            after.append(part)
        return outputs, tuple(after)

    def _log_probs(self, rows: Tensor) -> Tensor:
        return F.log_softmax(self.logits(rows), dim=-1)

    def invariant_widths(self) -> tuple[int, ...]:
        """The widths of blocks, ascending, in which a row has the same bits, with the present number of threads."""
        threads = torch.get_num_threads()
        if threads not in self._widths:
            self._widths[threads] = self._find_widths()
        return self._widths[threads]

    def _find_widths(self) -> tuple[int, ...]:
        widest, generator = WIDTHS[-1], torch.Generator().manual_seed(1)
        ids = torch.randint(self.model.vocab_size, (widest,), generator=generator).to(self.device)
        state = tuple(torch.randn(part.shape, generator=generator).to(part) for part in self.model.recurrence.zero_state(widest))
        expected = self._bits(ids, state)
        if bool(expected.isnan().any()):
            return WIDTHS  # NaN is an error wherever it is used
        for shift in (1, widest // 2 + 1):
            if not torch.equal(self._bits(ids.roll(shift), tuple(part.roll(shift, 1) for part in state)), expected.roll(shift, 0)):
                log.info("matrix products are not batch-invariant here: rows run one by one, which is slow")
                return (1,)
        invariant = []
        for width in WIDTHS:
            slices = [slice(start, start + width) for start in (0, widest - width)]
            if all(torch.equal(self._bits(ids[rows], tuple(part[:, rows] for part in state)), expected[rows]) for rows in slices):
                invariant.append(width)
        return tuple(invariant)

    def _bits(self, ids: Tensor, state: State) -> Tensor:
        """[W, ...] everything that a block computes for each row."""
        width = len(ids)
        outputs, after = self._block(_padded(ids, width, 0), tuple(_padded(part, width, 1) for part in state))
        return torch.cat([self._log_probs(outputs[-1]), *outputs, *(part.transpose(0, 1).flatten(1) for part in after)], 1)


class _StepWeights:
    """The weights of a layer (`cell.Products`), laid out for products of a few rows."""

    def __init__(self, layer: torch.nn.Module):
        self._vectors = {name: weight.detach() for name, weight in layer.named_parameters() if weight.ndim == 1}
        self._matrices = {name: FixedWeight(weight) for name, weight in layer.named_parameters() if weight.ndim == 2}

    def affine(self, rows: Tensor, weight: str, bias: str | None = None) -> Tensor:
        product = self._matrices[weight](rows)
        return product if bias is None else product.add_(self._vectors[bias])

    def vector(self, name: str) -> Tensor:
        return self._vectors[name]

    def sigmoid(self, rows: Tensor) -> Tensor:
        return torch.tanh(rows * 0.5) * 0.5 + 0.5


def _step_shortcut(shortcut: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """A residual connection, with its weight, if it has one, laid out likewise."""
    if not isinstance(shortcut, torch.nn.Linear):
        return shortcut
    return FixedWeight(shortcut.weight)


def repeat_rows(state: State, count: int) -> State:
    """Repeats each row's state `count` times, side by side: [C, B, S] -> [C, B * count, S]."""
    return tuple(part.repeat_interleave(count, 1) for part in state)


def select_rows(state: State, rows: Tensor) -> State:
    """The states of the given rows, in their order."""
    return tuple(part.index_select(1, rows) for part in state)


def _padded(part: Tensor, width: int, axis: int) -> Tensor:
    """Pads rows with zeros along an axis, in new memory (whose alignment is always the same)."""
    shape = list(part.shape)
    shape[axis] = width
    padded = part.new_zeros(shape)
    padded.narrow(axis, 0, part.shape[axis]).copy_(part)
    return padded

"""A network interpolated with other distributions of the next id (Jelinek and Mercer 1980): further networks, n-grams, a cache.

    P(w)  =  sum over i of lambda_i P_i(w)

where a component that knows nothing yet, as an empty cache, leaves its share to the others in proportion. Networks alone are an ensemble.

Shapes: B segments, P tokens of all of them end to end, R rows, D width into the softmax, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from packlm.interpolation.component import Component, ComponentOutput
from packlm.model.hashed_dropout import DropoutHashes
from packlm.model.language_model import Batch, InferenceModel, LanguageModel
from packlm.model.recurrence import State
from packlm.model.softmax import loss


class InterpolatedModel(InferenceModel):
    """Networks and components, as one model. Its state is that of each network, then that of each component."""

    def __init__(self, networks: Sequence[LanguageModel], components: Sequence[Component], weights: Sequence[float]):
        """`networks`: one or more, of the same vocabulary; components read the first one's rows. `weights`: of each network, then of each
        component; they add up to 1."""
        first = networks[0]
        super().__init__(first, first.layout)
        self.networks, self.components, self.weights = tuple(networks), tuple(components), tuple(weights)
        self.embedding = first.embedding
        self.eval()

    @property
    def description(self) -> str:
        """What the first network is interpolated with, for logs and reports."""
        return " and ".join(f"{name}, weight {weight:.3g}" for name, weight in zip(self.names[1:], self.weights[1:], strict=True))

    @property
    def names(self) -> list[str]:
        """Of each network, then of each component."""
        further = [f"network {number}" for number in range(2, len(self.networks) + 1)]
        return ["network", *further, *(component.description for component in self.components)]

    def zero_state(self, segments: int) -> State:
        of_networks = (part for network in self.networks for part in network.zero_state(segments))
        like = self.embedding.weight.new_empty(0, self.settings.widths[-1]).float()
        return (*of_networks, *(part for component in self.components for part in component.zero_state(like, segments)))

    def split_state(self, state: State) -> tuple[list[State], list[State]]:
        """The state of each network, and that of each component."""
        counts = [*(network.settings.layers for network in self.networks), *(component.state_parts for component in self.components)]
        stops = np.cumsum(counts).tolist()
        states = [state[stop - count : stop] for count, stop in zip(counts, stops, strict=True)]
        return states[: len(self.networks)], states[len(self.networks) :]

    def hidden(
        self, ids: Tensor, lengths: np.ndarray, state: State | None = None, return_state: bool = True,
        dropout_hashes: DropoutHashes | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """The first network's rows; as of any model, but always with the final states and without dropout."""
        rows, final, _ = self._read(ids, lengths, state)
        return rows[0], final

    def layers(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[list[Tensor], State]:
        """Those of the first network, and the final states of all."""
        (of_first, *of_further), of_components = self.split_state(state or self.zero_state(len(lengths)))
        layers, final = self.networks[0].layers(ids, lengths, of_first)
        for network, before in zip(self.networks[1:], of_further, strict=True):
            final += network.layers(ids, lengths, before)[1]
        return layers, (*final, *_final(self.components_read(ids, layers[-1], lengths, of_components)))

    @torch.inference_mode()
    def scores(self, batch: Batch, state: State | None = None, marked: Tensor | None = None) -> tuple[loss.RowScores, State | None]:
        rows, final, outputs = self._read(batch.inputs, batch.lengths, state)
        blocks = (
            _scores(self.mixture(distributions), batch.targets[some], marked) for some, distributions in self._distributions(rows, outputs)
        )
        return loss.joined(blocks, batch.targets, torch.float64), final

    @torch.inference_mode()
    def probabilities(self, batch: Batch, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """What each network and component gives each target, and whether it knows anything, [P, networks + components]; final states."""
        rows, final, outputs = self._read(batch.inputs, batch.lengths, state)
        columns = []
        for network, each in zip(self.networks, rows, strict=True):
            losses = network.projection.row_losses(each, batch.targets, self.logits_bytes)
            columns.append((losses.double().neg().exp(), torch.ones_like(losses, dtype=torch.bool)))
        for output in outputs:
            blocks = ((output.probabilities(some), batch.targets[some, None]) for some in self._chunks(len(batch.targets)))
            parts = [(block.gather(1, targets).squeeze(1), block.any(1)) for block, targets in blocks]
            columns.append((torch.cat([of_targets for of_targets, _ in parts]), torch.cat([known for _, known in parts])))
        return torch.stack([of_targets for of_targets, _ in columns], 1), torch.stack([known for _, known in columns], 1), final

    def _distributions(self, rows: Sequence[Tensor], outputs: Sequence[ComponentOutput]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Some rows at a time: P of every id after them by each network (rows [P, D]) and by each component, [R, V] float64 each."""
        for some in self._chunks(len(rows[0])):
            yield some, [*self._of_networks([each[some] for each in rows]), *(output.probabilities(some) for output in outputs)]

    def _chunks(self, count: int) -> Iterator[slice]:
        """Rows at a time whose distributions take the memory of the logits."""
        size = max(1, self.logits_bytes // (8 * self.vocab_size * len(self.weights)))
        yield from (slice(start, start + size) for start in range(0, count, size))

    def _of_networks(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """P of every id after rows [R, D] of each network, [R, V] float64."""
        return [network.projection(each).double().softmax(1) for network, each in zip(self.networks, rows, strict=True)]

    def components_read(self, ids: Tensor, rows: Tensor, lengths: np.ndarray, states: Sequence[State]) -> list[ComponentOutput]:
        """What each component says after segments: ids [P], the first network's rows [P, D], lengths [B], states of each component."""
        return [component.read(ids, rows, lengths, state) for component, state in zip(self.components, states, strict=True)]

    @torch.inference_mode()
    def read(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[Tensor, State]:
        rows, final, outputs = self._read(ids, lengths, state)
        last = torch.from_numpy(np.cumsum(lengths) - 1).to(ids.device)
        of_components = [torch.cat([output.probabilities(slice(index, index + 1)) for index in last.tolist()]) for output in outputs]
        return self.mixture([*self._of_networks([each.index_select(0, last) for each in rows]), *of_components]).log(), final

    def step_components(
        self, ids: Tensor, rows: Tensor, log_probs: Sequence[Tensor] | None, states: Sequence[State]
    ) -> tuple[Tensor | None, State]:  # fmt: skip
        """Adds the components to a single step of the networks: ids [R], rows [R, D] of the first, log P of the next id [R, V] by each, if
        needed, the state of each component -> log P of the mixture, states after. A row's bits do not depend on the others."""
        outputs = self.components_read(ids, rows, np.ones(len(ids), np.int64), states)
        if log_probs is None:
            return None, _final(outputs)
        mixed = torch.empty_like(log_probs[0])
        for row in range(len(ids)):  # together, the last elements of the last row would take another code path than those of the others
            some = slice(row, row + 1)
            of_networks = [each[some].double().exp() for each in log_probs]
            mixed[some] = self.mixture([*of_networks, *(output.probabilities(some) for output in outputs)]).log()
        return mixed, _final(outputs)

    def mixture(self, distributions: Sequence[Tensor]) -> Tensor:
        """[R, V] the mixture of the distributions [R, V] of each network and component; the first one is overwritten."""
        total, share = distributions[0].mul_(self.weights[0]), torch.full_like(distributions[0][:, :1], self.weights[0])
        for distribution, weight in zip(distributions[1:], self.weights[1:], strict=True):
            total.add_(distribution, alpha=weight)
            share.add_(distribution.any(1, keepdim=True), alpha=weight)
        return total.div_(share)

    def _read(self, ids: Tensor, lengths: np.ndarray, state: State | None) -> tuple[list[Tensor], State, list[ComponentOutput]]:
        """Rows of each network, the final states of all, what the components say."""
        of_networks, of_components = self.split_state(state or self.zero_state(len(lengths)))
        rows, final = list[Tensor](), list[Tensor]()
        for network, before in zip(self.networks, of_networks, strict=True):
            rows_, after = network.hidden(ids, lengths, before)
            assert after is not None
            rows.append(rows_)
            final += after
        outputs = self.components_read(ids, rows[0], lengths, of_components)
        return rows, (*final, *_final(outputs)), outputs


def _final(outputs: Sequence[ComponentOutput]) -> State:
    return tuple(part for output in outputs for part in output.final)


def _scores(probabilities: Tensor, targets: Tensor, marked: Tensor | None) -> loss.RowScores:
    """Scores of rows with distributions [R, V]; `marked`: [V] bool."""
    of_targets = probabilities.gather(1, targets[:, None])
    losses = -of_targets.squeeze(1).log()
    of_marked = torch.zeros_like(losses) if marked is None else (probabilities @ marked.double()).log()
    entropies = -torch.special.xlogy(probabilities, probabilities).sum(1)
    return loss.RowScores(losses, entropies, (probabilities > of_targets).sum(1), of_marked)


def interpolated(model: LanguageModel, component: Component, weight: float) -> InterpolatedModel:
    """The model, which may be interpolated, with another component; all others share what it leaves."""
    if not isinstance(model, InterpolatedModel):
        return InterpolatedModel([model], [component], [1 - weight, weight])
    others = [share * (1 - weight) for share in model.weights]
    return InterpolatedModel(model.networks, [*model.components, component], [*others, weight])

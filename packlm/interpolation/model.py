"""A network interpolated with other distributions of the next id (Jelinek and Mercer 1980): n-grams, a cache.

    P(w)  =  sum over i of lambda_i P_i(w)

where a component that knows nothing yet, as an empty cache, leaves its share to the others in proportion.

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
    """A network and components, as one model. Its state is the network's, then that of each component."""

    def __init__(self, network: LanguageModel, components: Sequence[tuple[Component, float]]):
        """`components`: each with its weight; what is left of 1 is the network's."""
        super().__init__(network, network.layout)
        self.network, self.components = network, [component for component, _ in components]
        weights = [weight for _, weight in components]
        self.weights = [1 - sum(weights), *weights]
        """Of the network, then of each component."""
        self.embedding = network.embedding
        self.eval()

    @property
    def description(self) -> str:
        """What the network is interpolated with, for logs and reports."""
        return " and ".join(
            f"{each.description}, weight {weight:.3g}" for each, weight in zip(self.components, self.weights[1:], strict=True)
        )

    def zero_state(self, segments: int) -> State:
        network, like = self.network.zero_state(segments), self.network.embedding.weight.new_empty(0, self.settings.widths[-1])
        return (*network, *(part for component in self.components for part in component.zero_state(like.float(), segments)))

    def split_state(self, state: State) -> list[State]:
        """The state of the network, then that of each component."""
        counts = [len(state) - sum(component.state_parts for component in self.components), *(each.state_parts for each in self.components)]
        stops = np.cumsum(counts).tolist()
        return [state[stop - count : stop] for count, stop in zip(counts, stops, strict=True)]

    def hidden(
        self, ids: Tensor, lengths: np.ndarray, state: State | None = None, return_state: bool = True,
        dropout_hashes: DropoutHashes | None = None,
    ) -> tuple[Tensor, State | None]:  # fmt: skip
        """As of any model, but always with the final states and without dropout."""
        rows, final, _ = self._read(ids, lengths, state)
        return rows, final

    def layers(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[list[Tensor], State]:
        network, *states = self.split_state(state or self.zero_state(len(lengths)))
        layers, final = self.network.layers(ids, lengths, network)
        return layers, (*final, *_final(self.components_read(ids, layers[-1], lengths, states)))

    @torch.inference_mode()
    def scores(self, batch: Batch, state: State | None = None, marked: Tensor | None = None) -> tuple[loss.RowScores, State | None]:
        rows, final, outputs = self._read(batch.inputs, batch.lengths, state)
        blocks = (
            _scores(self.mixture(distributions), batch.targets[some], marked) for some, distributions in self._distributions(rows, outputs)
        )
        return loss.joined(blocks, batch.targets, torch.float64), final

    @torch.inference_mode()
    def probabilities(self, batch: Batch, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """What the network and each component give each target, [P, 1 + components]; whether they know anything, likewise; final states."""
        rows, final, outputs = self._read(batch.inputs, batch.lengths, state)
        of_targets, known = [], []
        for some, distributions in self._distributions(rows, outputs):
            targets = batch.targets[some, None]
            of_targets.append(torch.cat([distribution.gather(1, targets) for distribution in distributions], 1))
            known.append(torch.stack([distribution.any(1) for distribution in distributions], 1))
        return torch.cat(of_targets), torch.cat(known), final

    def _distributions(self, rows: Tensor, outputs: Sequence[ComponentOutput]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Some rows at a time: P of every id after them by the network and by each component, [R, V] float64 each."""
        size = max(1, self.logits_bytes // (8 * self.vocab_size * (1 + len(outputs))))
        for start in range(0, len(rows), size):
            some = slice(start, start + size)
            of_network = self.network.projection(rows[some]).double().softmax(1)
            yield some, [of_network, *(output.probabilities(some) for output in outputs)]

    def components_read(self, ids: Tensor, rows: Tensor, lengths: np.ndarray, states: Sequence[State]) -> list[ComponentOutput]:
        """What each component says after segments: ids [P], the network's last layer [P, D], lengths [B], states of each component."""
        return [component.read(ids, rows, lengths, state) for component, state in zip(self.components, states, strict=True)]

    @torch.inference_mode()
    def read(self, ids: Tensor, lengths: np.ndarray, state: State | None = None) -> tuple[Tensor, State]:
        rows, final, outputs = self._read(ids, lengths, state)
        last = np.cumsum(lengths) - 1
        of_components = [torch.cat([output.probabilities(slice(index, index + 1)) for index in last]) for output in outputs]
        of_network = self.network.projection(rows.index_select(0, torch.from_numpy(last).to(rows.device))).double().softmax(1)
        return self.mixture([of_network, *of_components]).log(), final

    def step_components(
        self, ids: Tensor, rows: Tensor, log_probs: Tensor | None, states: Sequence[State]
    ) -> tuple[Tensor | None, State]:  # fmt: skip
        """Adds the components to a single step of the network: ids [R], rows [R, D], its log P of the next id [R, V] if needed, the states
        of each component -> log P of the mixture, states after. A row's bits do not depend on the others."""
        outputs = self.components_read(ids, rows, np.ones(len(ids), np.int64), states)
        if log_probs is None:
            return None, _final(outputs)
        mixed = torch.empty_like(log_probs)
        for row in range(len(ids)):  # together, the last elements of the last row would take another code path than those of the others
            some = slice(row, row + 1)
            mixed[some] = self.mixture([log_probs[some].double().exp(), *(output.probabilities(some) for output in outputs)]).log()
        return mixed, _final(outputs)

    def mixture(self, distributions: Sequence[Tensor]) -> Tensor:
        """[R, V] the mixture of the distributions [R, V] of the network and each component; the network's is overwritten."""
        total, share = distributions[0].mul_(self.weights[0]), torch.full_like(distributions[0][:, :1], self.weights[0])
        for distribution, weight in zip(distributions[1:], self.weights[1:], strict=True):
            total.add_(distribution, alpha=weight)
            share.add_(distribution.any(1, keepdim=True), alpha=weight)
        return total.div_(share)

    def _read(self, ids: Tensor, lengths: np.ndarray, state: State | None) -> tuple[Tensor, State, list[ComponentOutput]]:
        network, *states = self.split_state(state or self.zero_state(len(lengths)))
        rows, final = self.network.hidden(ids, lengths, network)
        assert final is not None
        outputs = self.components_read(ids, rows, lengths, states)
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
    """The model, which may have components, with another one; the old ones share what it leaves."""
    if not isinstance(model, InterpolatedModel):
        return InterpolatedModel(model, [(component, weight)])
    others = zip(model.components, model.weights[1:], strict=True)
    return InterpolatedModel(model.network, [*((other, share * (1 - weight)) for other, share in others), (component, weight)])

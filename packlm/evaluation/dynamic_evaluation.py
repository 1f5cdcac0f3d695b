"""Dynamic evaluation (Krause et al. 2018): the model goes on learning from the text it is measured on, each token after it was scored.

After every window the weights take a step of gradient descent on its loss, scaled by how large gradients were in training, and are drawn
back to what they were (their equations 7 to 10; RMS is the root of the mean squared gradient over windows of the training split, * and /
are taken element by element):

    W  <-  W  -  lr * gradient / (RMS + epsilon)  +  min(1, decay * RMS / mean(RMS)) * (W_trained - W)
"""

import copy

import torch
from torch import Tensor

from packlm.batches import carried_state
from packlm.batches.segments import Segments
from packlm.batches.stream_plan import StreamPlan
from packlm.dataset.views import Stream
from packlm.evaluation.evaluate import Scorer
from packlm.model.language_model import LanguageModel
from packlm.model.loss import RowScores
from packlm.model.recurrence import State

EPSILON = 1e-3
STATISTICS_STREAMS = 100
"""Windows of the training split whose mean loss makes one gradient of the statistics, as many as published."""
STATISTICS_STEPS = 200
"""Gradients that the statistics are taken over."""


def mean_squares(model: LanguageModel, training: Stream, window: int) -> list[Tensor]:
    """For each parameter the mean squared gradient, over the first windows of streams of the training split."""
    parameters, device = list(model.parameters()), model.embedding.weight.device
    streams = min(STATISTICS_STREAMS, len(training))
    plan = StreamPlan.even(training, streams, window, reset=False)
    found, carried = [torch.zeros_like(parameter) for parameter in parameters], model.recurrence.zero_state(streams)
    steps = min(plan.steps(0), STATISTICS_STEPS)
    for step in range(steps):
        segments = plan.share(0, step, 0, 1)
        gradients, final = _gradients(
            model, segments, carried_state.initial_state(model.recurrence.zero_state(1), carried, segments), device
        )
        carried = carried_state.next_state(carried, final, segments)
        for square, gradient in zip(found, gradients, strict=True):
            square.addcmul_(gradient, gradient, value=1 / steps)
    return found


class DynamicScorer(Scorer):
    """The model, which learns between windows; what starts from a zero state starts from the trained weights."""

    def __init__(self, model: LanguageModel, squares: list[Tensor], lr: float, decay: float, window: int):
        """`squares`: `mean_squares`; the model itself is left as it is."""
        self.longest: int | None = window
        self.model = copy.deepcopy(model)
        self.parameters, self.trained = list(self.model.parameters()), [parameter.detach().clone() for parameter in model.parameters()]
        roots = [square.sqrt() for square in squares]
        mean = sum(float(root.sum(dtype=torch.float64)) for root in roots) / sum(root.numel() for root in roots)
        self.rates = [lr / (root + EPSILON) for root in roots]
        self.pulls = [(decay / mean * root).clamp(max=1.0) for root in roots]
        self.device = model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        return self.model.recurrence.zero_state(segments)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        assert state is not None
        found, finals, place = [], [], 0
        for number, length in enumerate(segments.lengths.tolist()):
            here, own = slice(place, place + length), tuple(part[:, number : number + 1] for part in state)
            one = Segments(
                segments.inputs[here], segments.targets[here], segments.lengths[number : number + 1], segments.keys[number : number + 1],
                final_segments=segments.keys[:1],
            )  # fmt: skip
            if segments.initial_streams[number] < 0:
                self._forget()
            scores, final = self.model.scores(one.batch(self.device), own)
            assert final is not None
            found.append(scores)
            finals.append(final)
            self._learn(one, own)
            place += length
        together = tuple(torch.cat(parts, 1) for parts in zip(*finals, strict=True))
        return RowScores(*(torch.cat(parts) for parts in zip(*found, strict=True))), together

    def _learn(self, segments: Segments, state: State) -> None:
        gradients, _ = _gradients(self.model, segments, state, self.device)
        with torch.no_grad():
            for weight, gradient, rate, pull, trained in zip(
                self.parameters, gradients, self.rates, self.pulls, self.trained, strict=True
            ):  # fmt: skip
                weight.add_(pull * (trained - weight) - rate * gradient)

    def _forget(self) -> None:
        with torch.no_grad():
            for weight, trained in zip(self.parameters, self.trained, strict=True):
                weight.copy_(trained)


def _gradients(model: LanguageModel, segments: Segments, state: State, device: torch.device) -> tuple[tuple[Tensor, ...], State]:
    """The gradient of the mean loss of a window in each parameter, and the states after it."""
    sums, final = model(segments.batch(device), tuple(part.clone() for part in state))
    assert final is not None
    return torch.autograd.grad(sums.nll / len(segments.targets), list(model.parameters())), final

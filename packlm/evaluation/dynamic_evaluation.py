"""Dynamic evaluation (Krause et al. 2018): the model is trained further on the text it is evaluated on, each token after it was scored.

After every window the weights take a step of gradient descent on its loss, with learning rates by the size of gradients in training, and
decay towards the trained weights (equations 7 to 10 there; RMS is the root of the mean squared gradient over windows of the training
split; * and / are element-wise):

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
"""Windows of the training split whose mean loss gives one gradient of the statistics, as in the paper."""
STATISTICS_STEPS = 200
"""Gradients that the statistics are computed from."""


def mean_squares(model: LanguageModel, training: Stream, window: int) -> list[Tensor]:
    """The mean squared gradient of each parameter (equation 7), over the first windows of streams of the training split."""
    parameters, device = list(model.parameters()), model.embedding.weight.device
    streams = min(STATISTICS_STREAMS, len(training))
    plan = StreamPlan.even(training, streams, window, reset=False)
    squares, carried = [torch.zeros_like(parameter) for parameter in parameters], model.recurrence.zero_state(streams)
    steps = min(plan.steps(0), STATISTICS_STEPS)
    for step in range(steps):
        segments = plan.share(0, step, 0, 1)
        state = carried_state.initial_state(model.recurrence.zero_state(1), carried, segments)
        gradients, final = _gradients(model, segments, state, device)
        carried = carried_state.next_state(carried, final, segments)
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient, value=1 / steps)
    return squares


class DynamicScorer(Scorer):
    """The model, updated after every window. A segment that starts from a zero state starts from the trained weights."""

    def __init__(self, model: LanguageModel, squares: list[Tensor], lr: float, decay: float, window: int):
        """
        Args:
            model: is copied, not changed.
            squares: `mean_squares` of the model.
            lr: learning rate (eta in the paper).
            decay: decay rate towards the trained weights (lambda).
            window: tokens between two updates.
        """
        self.max_window: int | None = window
        self.model = copy.deepcopy(model)
        self.parameters, self.trained = list(self.model.parameters()), [parameter.detach().clone() for parameter in model.parameters()]
        roots = [square.sqrt() for square in squares]
        mean = sum(float(root.sum(dtype=torch.float64)) for root in roots) / sum(root.numel() for root in roots)
        self.learning_rates = [lr / (root + EPSILON) for root in roots]
        self.decay_rates = [(decay / mean * root).clamp(max=1.0) for root in roots]
        self.device = model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        return self.model.recurrence.zero_state(segments)

    def scores(self, segments: Segments, state: State | None) -> tuple[RowScores, State | None]:
        assert state is not None
        scores, finals, offset = [], [], 0
        for index, length in enumerate(segments.lengths.tolist()):
            targets, one = slice(offset, offset + length), slice(index, index + 1)
            segment = Segments(
                segments.inputs[targets], segments.targets[targets], segments.lengths[one], segments.keys[one],
                final_segments=segments.keys[:1],
            )  # fmt: skip
            if segments.initial_streams[index] < 0:
                self._restore_trained_weights()
            initial = tuple(part[:, one] for part in state)
            segment_scores, final = self.model.scores(segment.batch(self.device), initial)
            assert final is not None
            scores.append(segment_scores)
            finals.append(final)
            self._update(segment, initial)
            offset += length
        final_states = tuple(torch.cat(parts, 1) for parts in zip(*finals, strict=True))
        return RowScores(*(torch.cat(parts) for parts in zip(*scores, strict=True))), final_states

    def _update(self, segments: Segments, state: State) -> None:
        gradients, _ = _gradients(self.model, segments, state, self.device)
        with torch.no_grad():
            for weight, gradient, learning_rate, decay_rate, trained in zip(
                self.parameters, gradients, self.learning_rates, self.decay_rates, self.trained, strict=True
            ):  # fmt: skip
                weight.add_(decay_rate * (trained - weight) - learning_rate * gradient)

    def _restore_trained_weights(self) -> None:
        with torch.no_grad():
            for weight, trained in zip(self.parameters, self.trained, strict=True):
                weight.copy_(trained)


def _gradients(model: LanguageModel, segments: Segments, state: State, device: torch.device) -> tuple[tuple[Tensor, ...], State]:
    """The gradient of a window's mean loss with respect to each parameter, and the final states."""
    sums, final = model(segments.batch(device), tuple(part.clone() for part in state))
    assert final is not None
    return torch.autograd.grad(sums.nll / len(segments.targets), list(model.parameters())), final

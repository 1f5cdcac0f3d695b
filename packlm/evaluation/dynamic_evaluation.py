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
from packlm.model.language_model import Batch, LanguageModel
from packlm.model.products import matmul
from packlm.model.recurrence import State
from packlm.model.softmax import loss
from packlm.model.softmax.adaptive import AdaptiveSoftmax
from packlm.model.softmax.loss import RowScores

EPSILON = 1e-3
STATISTICS_STREAMS = 100
"""Windows of the training split whose mean loss gives one gradient of the statistics, as in the paper."""
STATISTICS_TOKENS = 100_000
"""Tokens of the training split that the statistics are computed from."""
_BLOCK_ROWS = 512
"""Rows of the softmax weights whose gradient is computed and applied while it is in the processor's cache."""


def mean_squares(model: LanguageModel, training: Stream, window: int) -> list[Tensor]:
    """The mean squared gradient of each parameter (equation 7), over the first windows of streams of the training split."""
    parameters, device = list(model.parameters()), model.embedding.weight.device
    streams = min(STATISTICS_STREAMS, len(training))
    plan = StreamPlan.even(training, streams, window, reset=False)
    squares, carried = [torch.zeros_like(parameter) for parameter in parameters], model.recurrence.zero_state(streams)
    steps = min(plan.steps(0), -(-STATISTICS_TOKENS // (streams * window)))
    for step in range(steps):
        segments = plan.share(0, step, 0, 1)
        state = carried_state.initial_state(model.recurrence.zero_state(1), carried, segments)
        sums, final = model(segments.batch(device), state)
        assert final is not None
        gradients = torch.autograd.grad(sums.nll / len(segments.targets), parameters)
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
            window: tokens between two updates, whose logits are in memory at once.
        """
        self.max_window: int | None = window
        self.model = copy.deepcopy(model)
        self.model.embedding.sparse = True
        roots = [square.sqrt() for square in squares]
        mean = sum(float(root.sum(dtype=torch.float64)) for root in roots) / sum(root.numel() for root in roots)
        weights = {
            name: _AdaptedWeight(weight, root, lr, decay / mean)
            for (name, weight), root in zip(self.model.named_parameters(), roots, strict=True)
        }
        self.weights = list(weights.values())
        self.embedding, self.bias = weights.pop("embedding.weight"), weights.pop("projection.bias")
        self.projection = weights.pop("projection.weight", self.embedding)
        self.clusters = [weights.pop(name) for name in ("projection.clusters.weight", "projection.clusters.bias") if name in weights]
        """Of the adaptive softmax."""
        self.layers = list(weights.values())
        self.device = model.embedding.weight.device

    def zero_state(self, segments: int) -> State:
        return self.model.recurrence.zero_state(segments)

    @torch.no_grad()
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
                for weight in self.weights:
                    weight.restore()
            segment_scores, final = self._score_and_update(segment.batch(self.device), tuple(part[:, one] for part in state))
            scores.append(segment_scores)
            finals.append(final)
            offset += length
        final_states = tuple(torch.cat(parts, 1) for parts in zip(*finals, strict=True))
        return RowScores(*(torch.cat(parts) for parts in zip(*scores, strict=True))), final_states

    def _score_and_update(self, batch: Batch, state: State) -> tuple[RowScores, State]:
        """The scores of a window, then a step on its mean loss, from one forward pass."""
        with torch.enable_grad():
            hidden, final = self.model.hidden(batch.inputs, batch.lengths, state)
        assert final is not None
        return self._update(hidden, batch), tuple(part.detach() for part in final)

    def _update(self, hidden: Tensor, batch: Batch) -> RowScores:
        """The scores of a window, and a step; the gradient of the softmax weights is never there as a whole."""
        softmax, rows, d_rows = self.model.projection, hidden.detach(), torch.zeros_like(hidden)
        bands = softmax.bands(batch.targets)
        logits = [matmul(rows[band.rows], band.softmax[1].T) for band in bands]
        if len(bands) == 1:
            scores = loss.scores_from_logits(logits[0] + softmax.bias, batch.targets, None)
        else:
            scores = softmax.row_scores(rows, batch.targets, self.model.logits_bytes)
        gradients = []
        for band, d_logits in zip(bands, logits, strict=True):
            targets, weight, bias = band.softmax
            d_bias = torch.zeros_like(bias)
            if len(targets):
                loss.replace_by_gradient(d_logits, targets, bias, d_bias)
                d_logits /= len(rows)
                d_rows[band.rows] += matmul(d_logits, weight)
            gradients.append((rows[band.rows], d_logits, d_bias / len(rows)))
        weights = (self.embedding.weight, *(weight.weight for weight in self.layers))
        d_embedding, *d_layers = torch.autograd.grad(hidden, weights, d_rows)
        for layer, gradient in zip(self.layers, d_layers, strict=True):
            layer.step(gradient)
        if isinstance(softmax, AdaptiveSoftmax):  # logits of the clusters follow those of the head's ids
            (inputs, d_logits, d_bias), num_ids = gradients[0], softmax.cutoffs[0]
            for cluster, gradient in zip(self.clusters, (d_logits[:, num_ids:].T @ inputs, d_bias[num_ids:]), strict=True):
                cluster.step(gradient)
            gradients[0] = inputs, d_logits[:, :num_ids], d_bias[:num_ids]
        first = 0
        for inputs, d_logits, d_bias in gradients:
            self._step_softmax(first, inputs, d_logits, d_bias)
            first += len(d_bias)
        if self.embedding is not self.projection:
            self.embedding.decay()
        self.embedding.step_rows(d_embedding._indices()[0], d_embedding._values())
        return scores

    def _step_softmax(self, first: int, inputs: Tensor, d_logits: Tensor, d_bias: Tensor) -> None:
        """A step of the softmax weights of the ids from `first` on, by the gradients of their logits; decay alone if no row needed them."""
        columns = d_logits.T.contiguous()
        for begin in range(0, len(columns), _BLOCK_ROWS):
            block = columns[begin : begin + _BLOCK_ROWS]
            part = slice(first + begin, first + begin + len(block))
            if len(inputs):
                self.projection.step(block @ inputs, part)
            else:
                self.projection.decay(part)
        self.bias.step(d_bias, slice(first, first + len(d_bias)))


class _AdaptedWeight:
    """A weight, the trained weight that it decays towards, and its rates."""

    def __init__(self, weight: Tensor, root: Tensor, lr: float, decay: float):
        self.weight, self._trained = weight, weight.detach().clone()
        self._learning_rates, self._decay_rates = lr / (root + EPSILON), (decay * root).clamp(max=1.0)

    def decay(self, part: slice = slice(None)) -> None:
        self.weight[part].lerp_(self._trained[part], self._decay_rates[part])

    def step(self, gradient: Tensor, part: slice = slice(None)) -> None:
        """Decay, and a step against the gradient, of all rows or some."""
        self.decay(part)
        self.weight[part].addcmul_(gradient, self._learning_rates[part], value=-1)

    def step_rows(self, rows: Tensor, gradients: Tensor) -> None:
        """A step against the gradients of some rows, which may repeat; no decay."""
        self.weight.index_add_(0, rows, gradients * self._learning_rates[rows], alpha=-1)

    def restore(self) -> None:
        self.weight.copy_(self._trained)

"""The adaptive softmax has the losses and gradients of torch's, and is one distribution over the whole vocabulary in all its uses."""

import pytest
import torch
from torch import Tensor, nn

from packlm import config
from packlm.base.errors import RequestError
from packlm.generation.stepper import Stepper
from packlm.model.language_model import build
from packlm.model.products import FixedWeight
from packlm.model.softmax import loss
from packlm.model.softmax.adaptive import AdaptiveSoftmax
from tests.small_models import wild

WIDTH, VOCAB, BYTES = 5, 11, 8 * 11 * 3
CUTOFFS = pytest.mark.parametrize("cutoffs", [(4,), (1, 2, 9), (3, 10)])
TARGETS = {
    "all bands": [0, 3, 10, 4, 9, 2, 1, 10, 0, 5, 3, 8, 2],
    "head alone": [0, 0, 0],
    "last cluster alone": [10, 10],
    "one row": [5],
}


def softmax(cutoffs: tuple[int, ...]) -> AdaptiveSoftmax:
    torch.manual_seed(1)
    made = AdaptiveSoftmax(WIDTH, VOCAB, cutoffs).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    return made


def torchs(ours: AdaptiveSoftmax) -> nn.AdaptiveLogSoftmaxWithLoss:
    """torch's adaptive softmax with our weights, whose projections change nothing."""
    theirs = nn.AdaptiveLogSoftmaxWithLoss(WIDTH, VOCAB, list(ours.cutoffs), div_value=1.0, head_bias=True).double()
    head = ours.cutoffs[0]
    with torch.no_grad():
        theirs.head.weight.copy_(torch.cat([ours.weight[:head], ours.clusters.weight]))
        theirs.head.bias.copy_(torch.cat([ours.bias[:head], ours.clusters.bias]))
        for tail, start, stop in zip(theirs.tail, ours.cutoffs, [*ours.cutoffs[1:], VOCAB], strict=True):
            tail[0].weight.copy_(torch.eye(WIDTH))
            tail[1].weight.copy_(ours.weight[start:stop])
    return theirs


@CUTOFFS
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_losses_and_gradients_are_those_of_torch(cutoffs: tuple[int, ...], targets: list[int]) -> None:
    ours = softmax(cutoffs)
    with torch.no_grad():
        ours.bias[cutoffs[0] :] = 0.0  # torch's clusters have no biases
    theirs, ids = torchs(ours), torch.tensor(targets)
    rows, their_rows = (torch.randn(len(ids), WIDTH, dtype=torch.float64, generator=_generator(), requires_grad=True) for _ in range(2))
    result = theirs(their_rows, ids)
    summed = ours.summed_loss(rows, ids, BYTES)
    torch.testing.assert_close(summed, -result.output.sum(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.row_losses(rows, ids, BYTES), -result.output, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours(rows), theirs.log_prob(their_rows), rtol=1e-12, atol=1e-14)

    (summed * 0.3).backward()
    (-result.output.sum() * 0.3).backward()
    head = cutoffs[0]
    pairs: list[tuple[Tensor | None, Tensor | None]] = [
        (rows.grad, their_rows.grad),
        (torch.cat([_grad(ours.weight)[:head], _grad(ours.clusters.weight)]), theirs.head.weight.grad),
        (torch.cat([_grad(ours.bias)[:head], _grad(ours.clusters.bias)]), theirs.head.bias.grad),
    ]
    for tail, start, stop in zip(theirs.tail, cutoffs, [*cutoffs[1:], VOCAB], strict=True):
        expected = tail[1].weight.grad
        pairs.append((_grad(ours.weight)[start:stop], torch.zeros_like(tail[1].weight) if expected is None else expected))
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@CUTOFFS
def test_all_uses_have_one_distribution(cutoffs: tuple[int, ...]) -> None:
    ours, targets, marked = softmax(cutoffs), torch.tensor(TARGETS["all bands"]), torch.arange(VOCAB) % 3 == 0
    rows = torch.randn(len(targets), WIDTH, dtype=torch.float64, generator=_generator())
    with torch.no_grad():
        log_probs = ours(rows)
        torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(len(rows), dtype=torch.float64), rtol=1e-13, atol=0)
        losses = -log_probs.gather(1, targets[:, None]).squeeze(1)
        torch.testing.assert_close(ours.row_losses(rows, targets, BYTES), losses, rtol=1e-12, atol=1e-14)
        scores = ours.row_scores(rows, targets, BYTES, marked)
        expected = loss.scores_from_logits(log_probs.clone(), targets, marked.double())
        for actual, reference in zip(scores, expected, strict=True):
            torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(scores.losses, losses, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(ours.logits_by(FixedWeight)(rows), log_probs, rtol=1e-12, atol=1e-13)


def test_biases_of_clusters_have_gradients() -> None:
    ours, targets = softmax((4,)), torch.tensor(TARGETS["all bands"])
    rows = torch.randn(len(targets), WIDTH, dtype=torch.float64, generator=_generator())
    ours.summed_loss(rows, targets, BYTES).backward()
    gradients = [_grad(weight).clone() for weight in ours.parameters()]
    ours.zero_grad()
    (-ours(rows).gather(1, targets[:, None]).sum()).backward()
    for actual, weight in zip(gradients, ours.parameters(), strict=True):
        torch.testing.assert_close(actual, _grad(weight), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tied", [True, False])
def test_a_row_generates_with_the_same_bits_in_any_company(tied: bool) -> None:
    stepper = Stepper(wild(build(config.Model(hidden=13, cutoffs=(3, 7), tied=tied), VOCAB, 1)))
    ids = torch.arange(VOCAB)
    state = tuple(torch.randn(part.shape, generator=_generator()) for part in stepper.model.recurrence.zero_state(VOCAB))
    together, _ = stepper.step(ids, state)
    for row in range(VOCAB):
        alone, _ = stepper.step(ids[row : row + 1], tuple(part[:, row : row + 1] for part in state))
        assert torch.equal(alone[0], together[row])
    expected, _ = stepper.model.step(ids, state)
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)


def test_cutoffs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RequestError, match=r"model\.cutoffs: 11 leaves no ids to the last cluster of a vocabulary of 11"):
        build(config.Model(cutoffs=(4, 11)), VOCAB, 1)
    with pytest.raises(ValueError, match="must ascend"):
        config.Model(cutoffs=(4, 4))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad

"""The chunked loss and its gradients are those of the whole, and never hold more logits than allowed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from packlm.model.softmax.loss import row_losses, row_scores, summed_loss

ROOT = Path(__file__).resolve().parents[2]


def random_rows(rows=13, width=5, vocab_size=11, dtype=torch.float64, scale=1.0):
    torch.manual_seed(1)
    tensors = [torch.randn(shape, dtype=dtype) * scale for shape in ((rows, width), (vocab_size, width), (vocab_size,))]
    return [tensor.requires_grad_() for tensor in tensors], torch.randint(0, vocab_size, (rows,))


@pytest.mark.parametrize("logits_bytes", [1, 8 * 11 * 3, 8 * 11 * 12, 1 << 20])
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(logits_bytes):
    (rows, weight, bias), targets = random_rows()
    expected = F.cross_entropy(F.linear(rows, weight, bias), targets, reduction="none")
    summed = summed_loss(rows, targets, weight, bias, logits_bytes)
    torch.testing.assert_close(summed, expected.sum(), rtol=1e-13, atol=0)
    ours, reference = (torch.autograd.grad(loss * 0.3, (rows, weight, bias)) for loss in (summed, expected.sum()))
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(row_losses(rows, targets, weight, bias, logits_bytes), expected.detach(), rtol=1e-13, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(summed_loss(rows, targets, weight, bias, logits_bytes), expected.sum(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("logits_bytes", [1, 8 * 11 * 3, 1 << 20])
def test_scores_of_rows_are_those_of_their_distributions(logits_bytes):
    (rows, weight, bias), targets = random_rows()
    marked = torch.arange(11) % 3 == 0
    scores = row_scores(rows, targets, weight, bias, logits_bytes, marked)
    probabilities = F.linear(rows, weight, bias).softmax(1).detach()
    for row, target in enumerate(targets.tolist()):
        distribution = probabilities[row]
        assert scores.losses[row].item() == pytest.approx(-distribution[target].log().item(), rel=1e-12)
        assert scores.entropies[row].item() == pytest.approx(-(distribution * distribution.log()).sum().item(), rel=1e-12)
        assert scores.likelier[row].item() == sum(value > distribution[target] for value in distribution)
        assert scores.marked[row].item() == pytest.approx(distribution[marked].sum().log().item(), rel=1e-12)
    assert not row_scores(rows, targets, weight, bias).marked.any()


def test_improbable_targets_have_finite_losses():
    """Where a probability is 0 in float32, its logarithm is not."""
    (rows, weight, bias), targets = random_rows(dtype=torch.float32, scale=20.0)
    expected = F.cross_entropy(F.linear(rows, weight, bias), targets, reduction="none")
    assert expected.max() > 120
    torch.testing.assert_close(row_losses(rows, targets, weight, bias), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_products_are_rounded_and_sums_are_not(dtype):
    (rows, weight, bias), targets = random_rows(rows=200, width=64, vocab_size=50, dtype=torch.float32, scale=0.3)
    exact = F.cross_entropy(F.linear(rows, weight, bias), targets, reduction="sum")
    with torch.autocast("cpu", dtype):
        summed = summed_loss(rows, targets, weight, bias, 4096)
    assert summed.dtype == torch.float64
    assert 0 < abs(summed.item() / exact.item() - 1) < 1e-3
    for ours, reference in zip(*(torch.autograd.grad(loss, (rows, weight, bias)) for loss in (summed, exact)), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - reference).norm() / reference.norm() < 0.01


class Largest(TorchDispatchMode):
    """Records the bytes of the largest tensor that any operation makes."""

    def __init__(self, excluded: set[torch.Size]):
        super().__init__()
        self.bytes, self.excluded = 0, excluded

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor) and result.shape not in self.excluded:
            self.bytes = max(self.bytes, result.nbytes)
        return result


def test_a_vocabulary_of_100_000_stays_within_its_memory():
    """All logits at once would take 819 MB."""
    rows = torch.randn(2048, 4, requires_grad=True)
    weight, bias = torch.randn(100_000, 4, requires_grad=True), torch.zeros(100_000, requires_grad=True)
    with Largest({weight.shape, weight.T.shape}) as largest:
        summed_loss(rows, torch.arange(2048), weight, bias, 30 << 20).backward()
        row_losses(rows, torch.arange(2048), weight, bias, 30 << 20)
    assert 20 << 20 < largest.bytes <= 30 << 20


@pytest.mark.long
def test_scores_of_many_chunks_take_the_memory_of_one():
    """In a process of its own, whose memory nothing else has used: results kept between chunks split it, sometimes, and all were held."""
    program = """
import resource, torch
from packlm.model.softmax.loss import row_losses, row_scores
torch.set_num_threads(1)
weight, bias = torch.randn(100_000, 8), torch.zeros(100_000)
rows, targets = torch.randn(2_000, 8), torch.randint(100_000, (2_000,))
row_scores(rows[:80], targets[:80], weight, bias), row_losses(rows[:80], targets[:80], weight, bias)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
row_scores(rows, targets, weight, bias), row_losses(rows, targets, weight, bias)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 100 << 10  # of 780 MiB of logits

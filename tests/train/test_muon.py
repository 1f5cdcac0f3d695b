"""Muon: the iterations on the Gram matrix are the published ones on the matrix itself, also in bfloat16 for gradients of low rank,
and its steps are torch's but for bfloat16."""

import pytest
import torch

from train.optim.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (7, 7)])
def test_orthogonal_is_newton_schulz(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b, c = COEFFICIENTS
    expected = matrix / matrix.norm()
    for _ in range(ITERATIONS):
        gram = expected @ expected.T
        expected = a * expected + (b * gram + c * gram @ gram) @ expected
    torch.testing.assert_close(orthogonal(matrix), expected, rtol=1e-9, atol=1e-9)


def test_singular_values_come_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(64, 32, generator=torch.Generator().manual_seed(1))))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


@pytest.mark.parametrize(("rank", "noise"), [(130, 0.0), (5, 0.1), (5, 1e-3), (1, 1e-5)])
def test_singular_values_in_bfloat16(rank: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(520, rank, generator=generator) @ torch.randn(rank, 130, generator=generator)
    matrix += noise * torch.randn(520, 130, generator=generator)
    ours, exact = orthogonal(matrix, bfloat16=True), orthogonal(matrix.double())
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    difference = left.T[:rank].double() @ (ours - exact) @ right[:rank].T.double()  # where the matrix is more than noise
    assert ours.dtype == torch.float32
    # Rounding to bfloat16: up to 0.06 or 0.09 in 12 matrices of each kind, by the processor's way to sum. The method itself leaves singular
    # values up to 0.3 from 1.
    assert float(difference.abs().max()) < 0.12
    assert float(torch.linalg.svdvals(ours).max()) < 1.3


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(24, 8, generator=generator)
    gradients = torch.randn(4, 24, 8, generator=generator)
    moved = []
    for kind, more in ((Muon, {}), (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"})):
        weight = torch.nn.Parameter(first.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.2, **more)
        for gradient in gradients:
            weight.grad = gradient
            optimizer.step()
        moved.append(weight.detach() - first)
    assert float((moved[0] - moved[1]).norm() / moved[1].norm()) < 0.02  # what bfloat16 rounds


def test_nothing_moves_without_a_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    Muon([weight], lr=0.1, weight_decay=0.2).step()
    assert torch.equal(weight, torch.ones(3, 2))

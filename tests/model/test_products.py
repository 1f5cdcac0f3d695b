"""Products are those of float64 to the rounding of their type, by whichever library; kernels in bfloat16 round their products alone."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from packlm import config
from packlm.model import products
from packlm.model.language_model import build
from tests.reference import random_batch

KERNELS = ("lstm", "gru", "rnn")  # a gradient of ReLU jumps where its input is rounded to another sign
EXACT, ROUNDED = 1e-6, 1e-2
"""Relative errors of products of 300 summands in float32, and in bfloat16."""


@pytest.fixture(params=["mkl", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param == "onednn")
    yield request.param


def error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_every_product_is_that_of_float64_to_rounding(library, rows, dtype):
    generator = torch.Generator().manual_seed(rows)
    left, weight, bias = (torch.randn(shape, generator=generator) for shape in ((rows, 300), (90, 300), (90,)))
    total, gradient = torch.randn(rows, 90, generator=generator), torch.randn(rows, 90, generator=generator)
    limit, exact = EXACT if dtype == torch.float32 else ROUNDED, (left.double() @ weight.double().T)
    rounded = weight.to(dtype)
    assert error(products.matmul(left, rounded.T), exact) < limit
    assert error(products.affine(left, rounded, bias), exact + bias) < limit
    outer = products.sum_of_outer_products(gradient, left.to(dtype))
    assert error(outer, gradient.double().T @ left.double()) < limit
    added = total.clone()
    products.add_product_(added, left, rounded.T)
    assert error(added, total + exact) < limit
    assert {part.dtype for part in (outer, added, products.matmul(left, rounded.T))} == {torch.float32}
    assert products.matmul(left[:0], rounded.T).shape == (0, 90)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_products_with_a_fixed_weight_are_those_of_float64_to_rounding(rows, dtype, onednn, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    generator = torch.Generator().manual_seed(rows)
    left, weight, bias = (torch.randn(shape, generator=generator) for shape in ((rows, 300), (90, 300), (90,)))
    exact, left = left.double() @ weight.double().T, left.to(dtype)
    assert error(products.FixedWeight(weight.to(dtype))(left), exact) < EXACT
    assert error(products.FixedWeight(weight.to(dtype), bias.to(dtype))(left), exact + bias) < EXACT


def test_libraries_are_both_used_in_float32(library, monkeypatch):
    used = []
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda left, *_: used.append("onednn") or left)
    products.matmul(torch.ones(2, 2), torch.ones(2, 2))
    products.matmul(torch.ones(2, 2).double(), torch.ones(2, 2).double())
    assert used == ["onednn"] * (library == "onednn")


@pytest.mark.parametrize("cell", KERNELS)
def test_kernels_in_bfloat16_round_products_alone(cell, monkeypatch):
    monkeypatch.setattr(products, "has_bfloat16", lambda device: True)
    model = build(config.Model(cell=cell, layers=2, hidden=48), 30, 1, "steps")
    batch, lengths = random_batch(2, [9, 4, 9, 1], 30), np.array([9, 4, 9, 1])
    exact = build(config.Model(cell=cell, layers=2, hidden=48), 30, 1, "steps").double()
    with torch.autocast("cpu", torch.bfloat16):
        rows, final = model.hidden(batch.inputs, lengths)
    expected_rows, expected_final = exact.hidden(batch.inputs, lengths)
    assert {rows.dtype, *(part.dtype for part in final)} == {torch.float32}
    assert not torch.equal(rows, rows.bfloat16().float())
    assert 1e-5 < error(rows, expected_rows) < ROUNDED
    assert all(error(part, expected) < ROUNDED for part, expected in zip(final, expected_final, strict=True))
    factors = torch.randn(rows.shape, generator=torch.Generator().manual_seed(3))
    ours, expected = (
        torch.autograd.grad((output * factors).sum(), [part.embedding.weight, *part.recurrence.parameters()])
        for part, output in ((model, rows), (exact, expected_rows))
    )
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == torch.float32 and error(one, other) < ROUNDED

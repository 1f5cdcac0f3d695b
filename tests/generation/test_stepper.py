"""One token at a time: what `LanguageModel.step` computes, with bits that do not depend on the company."""

import pytest
import torch
from torch import Tensor

from packlm import config
from packlm.generation.stepper import Stepper
from packlm.model import language_model as models
from packlm.model.cells import CELLS
from packlm.model.recurrence import State
from tests.generation.enumeration import EOS, arrays, chain, tiny
from tests.small_models import wild


def made_up(stepper: Stepper, rows: int) -> tuple[Tensor, State]:
    """Ids and states of rows."""
    generator = torch.Generator().manual_seed(rows)
    zero = stepper.model.recurrence.zero_state(rows)
    ids = torch.randint(stepper.model.vocab_size, (rows,), generator=generator)
    return ids, tuple(torch.randn(part.shape, generator=generator).to(part) for part in zero)


@pytest.mark.parametrize("residual", ["none", "add", "project"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_is_the_models(cell: str, residual: str) -> None:
    widths = {"hidden": 7} if residual == "add" else {"hidden": (6, 7), "embedding": 3, "tied": False}
    settings = config.Model(cell=cell, layers=2, residual=residual, **widths)
    model = wild(models.build(settings, 9, 1).double())
    stepper = Stepper(model)
    ids, state = made_up(stepper, 70)
    with torch.inference_mode():
        for (log_probs, after), (expected, expected_after) in [(stepper.step(ids, state), model.step(ids, state))]:
            torch.testing.assert_close(log_probs, expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(after, expected_after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_prompts_of_any_lengths_are_read_as_one_by_one(cell: str) -> None:
    model, prompts = tiny(cell, vocabulary=9), [(EOS, 3), (EOS,), (EOS, 2, 5, 1, 1, 7), (EOS, 8, 8)]
    with torch.inference_mode():
        log_probs, state = Stepper(model).read(arrays(prompts))
        for row, prompt in enumerate(prompts):
            expected, after = chain(model, prompt)
            torch.testing.assert_close(log_probs[row], expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(tuple(part[:, row : row + 1] for part in state), after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("units", "residual"), [(5, "none"), (13, "none"), (32, "none"), (13, "add"), ((9, 13), "project")])
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_has_the_same_bits_in_any_company(cell: str, units: int | tuple[int, int], residual: str) -> None:
    stepper = Stepper(wild(models.build(config.Model(cell=cell, hidden=units, residual=residual), 11, 1)))
    ids, state = made_up(stepper, 150)
    with torch.inference_mode():
        log_probs, after = stepper.step(ids, state)
        for start, stop in ((0, 1), (149, 150), (3, 6), (60, 69), (17, 50), (20, 117)):
            own, own_after = stepper.step(ids[start:stop], tuple(part[:, start:stop] for part in state))
            assert torch.equal(own, log_probs[start:stop])
            assert all(torch.equal(one, other[:, start:stop]) for one, other in zip(own_after, after, strict=True))


def test_the_state_is_zeroed_after_the_end_of_a_sentence() -> None:
    model = tiny(vocabulary=5)
    ids, state = torch.tensor([EOS, 3]), made_up(Stepper(model), 2)[1]
    with torch.inference_mode():
        log_probs, _ = Stepper(model, restart_after=EOS).step(ids, state)
        torch.testing.assert_close(log_probs[0], chain(model, (EOS,))[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_probs[1], model.step(ids, state)[0][1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "steady"),
    [
        (lambda rows: torch.full((rows,), float(rows < 4)), (4, 8, 16, 32, 64)),
        (lambda rows: torch.full((rows,), float(rows < 16)), (16, 32, 64)),
        (lambda rows: torch.arange(rows) % 16 == 15, (1,)),
    ],
)
def test_widths_that_change_bits_are_not_used(spoil: object, steady: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A product whose last bits depend on the number of rows, or on the place of a row."""
    product = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda bias, left, right: product(bias, left, right) + 1e-9 * spoil(len(left))[:, None])  # type: ignore[operator]
    stepper = Stepper(tiny(vocabulary=9))
    assert stepper.invariant_widths() == steady
    ids, state = made_up(stepper, 50)
    with torch.inference_mode():
        log_probs, _ = stepper.step(ids, state)
        assert torch.equal(stepper.step(ids[45:], tuple(part[:, 45:] for part in state))[0], log_probs[45:])


def test_they_are_tried_again_with_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    products, product = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *arguments: products.append(1) or product(*arguments))
    stepper, threads, counts = Stepper(tiny()), torch.get_num_threads(), []
    try:
        for now in (threads, threads, threads + 1, threads):
            torch.set_num_threads(now)
            products.clear()
            stepper.invariant_widths()
            counts.append(bool(products))
    finally:
        torch.set_num_threads(threads)
    assert counts == [True, False, True, False]

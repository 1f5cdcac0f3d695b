"""Hashed randomness is uniform, independent between places, and the same wherever it is asked for."""

import numpy as np
import torch

from train import noise


def masks(step=1, layer=0, share=0.3, rows=2000, width=300, seed=1):
    hashes = noise.row_noise(seed, step, np.array([4]), np.array([rows]))
    return noise.dropout(torch.ones(rows, width), hashes, layer, share)


def test_dropout_drops_its_share_and_keeps_the_mean():
    kept = masks()
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    dropped = (kept == 0).double()
    # 600,000 draws: five standard deviations
    assert abs(dropped.mean() - 0.3) < 5 * (0.21 / 600_000) ** 0.5
    # Rows and columns vary as independent draws do.
    assert 0.8 < dropped.mean(0).std() / (0.21 / 2000) ** 0.5 < 1.2
    assert 0.8 < dropped.mean(1).std() / (0.21 / 300) ** 0.5 < 1.2


def test_masks_of_other_steps_layers_seeds_units_and_rows_are_unrelated():
    base = (masks() == 0).double()
    others = [masks(step=2), masks(layer=1), masks(seed=2), masks().roll(1, 0), masks().roll(1, 1)]
    for other in others:
        both = (base * (other == 0)).mean()
        assert abs(both - 0.09) < 5 * (0.09 * 0.91 / 600_000) ** 0.5


def test_a_row_has_the_same_mask_in_any_batch():
    lengths, segments = np.array([3, 2, 4]), np.array([10, 20, 30])
    together = noise.row_noise(1, 7, segments, lengths)
    alone = [noise.row_noise(1, 7, segments[i : i + 1], lengths[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_uniform_numbers_are_uniform():
    draws = noise.uniform(3, np.arange(100_000))
    assert draws.min() > 0 and draws.max() < 1
    counts, _ = np.histogram(draws, 100, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 150  # chi-square with 99 degrees of freedom: p = 0.0007

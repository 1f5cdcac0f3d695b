"""Hashed randomness is uniform, and the same wherever it is asked for."""

import numpy as np
import torch

from packlm.model import hashed_dropout


def test_a_row_has_the_same_mask_in_any_batch():
    lengths, segments = np.array([3, 2, 4]), np.array([10, 20, 30])
    ids = np.arange(9)
    for locked in (False, True):
        together = hashed_dropout.DropoutHashes.of(1, 7, segments, lengths, ids, locked)
        ends = np.cumsum(lengths)
        alone = [
            hashed_dropout.DropoutHashes.of(1, 7, segments[i : i + 1], lengths[i : i + 1], ids[end - lengths[i] : end], locked)
            for i, end in enumerate(ends)
        ]
        assert torch.equal(together.rows, torch.cat([part.rows for part in alone]))
        assert torch.equal(together.words, torch.cat([part.words for part in alone]))


def test_uniform_numbers_are_uniform():
    draws = hashed_dropout.uniform(3, np.arange(100_000))
    assert draws.min() > 0 and draws.max() < 1
    counts, _ = np.histogram(draws, 100, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 150  # chi-square with 99 degrees of freedom: p = 0.0007

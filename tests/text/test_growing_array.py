"""An array that grows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from packlm.text.hash_table import GrowingArray


@given(st.lists(st.lists(st.integers(0, 255)), max_size=20), st.lists(st.integers(0, 255)))
def test_values_come_in_order(lots, first):
    """Views stay as they were."""
    made, expected, seen = GrowingArray(np.array(first, np.uint8)), list(first), []
    for lot in lots:
        seen.append((made.values, list(expected)))
        made.add(np.array(lot, np.uint8))
        expected += lot
        assert made.values.dtype == np.uint8 and made.values.tolist() == expected
    assert all(view.tolist() == then for view, then in seen)
    made.drop(len(expected) // 2)
    made.add(np.array([1, 2], np.uint8))
    assert made.values.tolist() == [*expected[: len(expected) - len(expected) // 2], 1, 2]

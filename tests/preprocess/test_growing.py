"""An array that grows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocess.growing import Growing


@given(st.lists(st.lists(st.integers(0, 255)), max_size=20), st.lists(st.integers(0, 255)))
def test_values_come_in_order_and_views_stay_as_they_were(lots, first):
    made, expected, seen = Growing(np.array(first, np.uint8)), list(first), []
    for lot in lots:
        seen.append((made.values, list(expected)))
        made.add(np.array(lot, np.uint8))
        expected += lot
        assert made.values.dtype == np.uint8 and made.values.tolist() == expected
    assert all(view.tolist() == then for view, then in seen)

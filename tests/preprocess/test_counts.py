"""Counts of strings against `collections.Counter`."""

from collections import Counter

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build import counts
from preprocess.build.counts import Counts, most_frequent

WORDS = st.text("abé😀 \x00", max_size=3)


@hypothesis.settings(deadline=None)
@given(blocks=st.lists(st.lists(st.tuples(WORDS, st.integers(0, 2**40)))), pending=st.integers(0, 6), limit=st.integers(0, 8))
def test_counts_add_up(blocks, pending, limit):
    expected = Counter()
    made = Counts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_PENDING_ROWS", pending)
        for block in blocks:
            made.add(pa.array([word for word, _ in block], pa.string()), np.array([count for _, count in block], np.int64))
            for word, count in block:
                expected[word.encode()] += count
    table = made.table()
    assert list(zip(*table.to_pydict().values(), strict=True)) == sorted(expected.items())
    best = sorted(expected.items(), key=lambda item: (-item[1], item[0]))[:limit]
    assert list(zip(*most_frequent(table, limit).to_pydict().values(), strict=True)) == best


def test_memory_depends_on_the_distinct_strings(monkeypatch):
    monkeypatch.setattr(counts, "_PENDING_ROWS", 10)
    made = Counts()
    for start in range(0, 1000, 5):
        made.add(pa.array([str((start + index) % 20) for index in range(5)]), np.ones(5, np.int64))
        assert sum(part.num_rows for part in made._parts) <= 20 + 20 + 5
    assert made.table().column("count").to_pylist() == [50] * 20

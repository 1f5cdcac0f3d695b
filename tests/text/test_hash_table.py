"""The hash table of texts, beside a dict."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packlm.text import hash_table
from packlm.text.hash_table import HashTable

TEXTS = st.text(max_size=20) | st.text("a\0", max_size=18) | st.text("ab", min_size=1, max_size=3).map(lambda end: "é" * 63 + end)


@settings(deadline=None)
@given(lots=st.lists(st.lists(TEXTS, unique=True), max_size=5), others=st.lists(TEXTS))
def test_as_a_dict(lots, others):
    """Empty texts, those that differ in nulls at their end, of eight bytes more or less, and long ones that differ in the last."""
    made, expected = HashTable(), {}
    for lot in lots:
        new = [text for text in lot if text not in expected]
        made.add(pa.array(new, pa.string()))
        expected |= {text: len(expected) + number for number, text in enumerate(new)}
        asked = [*expected, *others, *expected]
        assert made.find(pa.array(asked, pa.string())).tolist() == [expected.get(text, -1) for text in asked]
    assert len(made) == len(expected)
    assert made.num_bytes >= sum(len(text) for text in expected)


def test_many():
    """The table grows, and texts are in each other's way."""
    words = [f"{number * 7919 % 100_003:x}{'!' * (number % 30)}" for number in range(100_000)]
    made, values = HashTable(), pa.array(words)
    assert made.find(values[:3]).tolist() == [-1, -1, -1]
    for start in range(0, len(words), 30_000):
        made.add(values[start : start + 30_000])
        expected = np.where(np.arange(len(words)) < start + 30_000, np.arange(len(words)), -1)
        assert (made.find(values) == expected).all()
    order = np.random.default_rng(1).permutation(len(words))
    assert (made.find(values.take(pa.array(order))) == order).all()
    assert made.find(values[99_990:]).tolist() == list(range(99_990, 100_000))


def test_a_text_as_long_as_a_book():
    """Takes no step for every eight bytes of it."""
    made, book = HashTable(), pa.array(["a" * 50_000_000, "b"])
    assert made.find(book).tolist() == [-1, -1]
    made.add(book)
    assert made.find(pa.array(["b", "a" * 50_000_000, "a" * 50_000_001])).tolist() == [1, 0, -1]


@pytest.mark.parametrize("factor", [0, 1 << 62])
def test_no_text_is_taken_for_another_of_the_same_hash(monkeypatch, factor):
    monkeypatch.setattr(hash_table, "_FACTOR", np.uint64(factor))
    words = [f"word{number}" for number in range(40)]
    made = HashTable()
    made.add(pa.array(words[:30]))
    found = made.find(pa.array(words)).tolist()
    assert all(row in (number, -1) for number, row in enumerate(found)) and set(found[30:]) == {-1}
    assert 1 <= sum(row >= 0 for row in found) < 30

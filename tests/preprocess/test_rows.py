"""The fixed view: rows of L targets, cut from blocks of documents as if they came in one."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.dataset import ColumnTypes
from preprocess.build.rows import RowCutter

EOS = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 9), max_size=12), max_size=8)


def expected(documents, rule, length):
    """(ids of the row, begins, targets), one row after the other, the plainest way."""
    runs = documents if rule == "document" else [[id for document in documents for id in document]]
    opens = np.cumsum([0, *map(len, documents)])[:-1].tolist()
    rows, position, before = [], 0, EOS
    for run in runs:
        for start in range(0, len(run), length):
            targets = run[start : start + length]
            ids = [before, *targets]
            begins = [open - position for open in opens if position <= open < position + len(targets)]
            rows.append((ids + ids[-1:] * (length + 1 - len(ids)), begins, len(targets)))
            position, before = position + len(targets), targets[-1]
    return rows


@pytest.mark.parametrize("rule", ["stream", "document"])
@given(documents=DOCUMENTS, length=st.integers(1, 7), cut=st.integers(0, 8))
def test_rows_are_those_of_the_plainest_loop(rule, documents, length, cut):
    documents = [[*document, EOS] for document in documents]
    rows = RowCutter(rule, ColumnTypes(10, length), EOS)
    tables = []
    for block in (documents[:cut], documents[cut:]):
        ids = np.array([id for document in block for id in document], np.uint16)
        tables.append(rows.add(ids, np.cumsum([0, *map(len, block)])[:-1]))
    table = pa.concat_tables([*tables, rows.rest()])
    found = [(row["ids"], row["begins"], row["num_targets"]) for row in table.to_pylist()]
    assert found == expected(documents, rule, length)

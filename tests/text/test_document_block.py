"""Documents end to end come apart again as they were."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from packlm.text.document_block import DocumentBlock


@given(documents=st.lists(st.tuples(st.text(), st.text())))
def test_documents_come_apart_again(documents):
    texts = DocumentBlock.of(documents)
    assert list(texts) == documents and len(texts) == len(documents)
    assert texts.data.dtype == np.uint8 and texts.ends.dtype == texts.starts.dtype == np.int64
    assert np.array_equal(texts.starts, [0, *texts.ends][: len(documents)])
    for low, high in ((0, 1), (1, 3), (2, 2), (0, len(documents))):
        assert list(texts[low:high]) == documents[low:high]

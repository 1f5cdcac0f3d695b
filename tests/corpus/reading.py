"""How the tests of documents read a source."""

from collections import Counter

import pytest
from hypothesis import settings

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import discovery, documents, formats
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import codec

MANY = settings(deadline=None, max_examples=80)


def read(source, part_bytes=1 << 25, **rules):
    """({name: text}, counts that are not zero) of a source cut into parts."""
    rules, counts = Corpus(**rules), Counter()
    parts, _ = formats.scan(source, rules, part_bytes)
    pairs = [pair for block in documents.read_all(parts, rules, "", counts) for pair in block]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs), dict(+counts)


def text(data, part_bytes=1 << 25, **rules):
    return read(Source("f", data=data, encoding=codec(rules.get("encoding", "utf-8"))), part_bytes, **rules)


def written(tmp_path, name, data, **rules):
    """What is read of a file of that name with these bytes."""
    (tmp_path / name).write_bytes(data)
    (source,) = discovery.find([str(tmp_path / name)], Corpus(**rules), "train", tmp_path)
    return read(source, **rules)


def refused(tmp_path, name, data, match, **rules):
    with pytest.raises(PacklmError, match=match):
        written(tmp_path, name, data, **rules)

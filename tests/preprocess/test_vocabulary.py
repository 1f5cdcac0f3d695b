"""Vocabularies counted task by task, against one `collections.Counter` fed by the tokenizer itself."""

import random
import re
import resource
from collections import Counter

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm import config
from packlm.base.errors import PacklmError
from packlm.text import tokenizers
from preprocess.build import vocabulary
from preprocess.build.vocabulary import Counts, highest, merge

SETTINGS = [
    config.Tokenizer(kind=kind, words=words, lowercase=lowercase, normal_form=form)
    for kind, words in (("word", "space"), ("word", "punctuation"), ("character", "space"))
    for lowercase in (False, True)
    for form in ("none", "nfc", "nfkd")
]
TEXT = st.sampled_from(["a <eos> b<unk> <unk>", "<UNK> x\u0085y"]) | st.text("aBé\u0301\u0345İΣ´ﬁ½ _9.-\n\t\r\x00\x1c\x85\xa0\u2028😀")


def chunks(text):
    """White space begins a chunk, one character of it at most, wherever it is ASCII."""
    return re.findall(r"[\t-\r ]?[^\t-\r ]+|[\t-\r ]", text)


def counted(settings, texts, path):
    made = vocabulary.EntryCounter(settings)
    for text in texts:
        found = Counter(chunks(text))
        assert "".join(chunks(text)) == text
        made.add(pa.array(list(found), pa.string()), np.array(list(found.values()), np.int64))
    made.write(path)
    return path


def looked_up(settings, texts):
    """What the tokenizer looks up, counted one by one."""
    kind = tokenizers.KINDS[settings.kind]
    normalizer, pre_tokenizer = kind.normalizer(settings), kind.pre_tokenizer(settings)
    expected = Counter()
    for text in texts:
        expected.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text) if normalizer else text))
    for special in ("<eos>", "<unk>"):
        expected.pop(special, None)
    return expected


def best(expected, limit, min_count=1):
    kept = [item for item in expected.items() if item[1] >= min_count]
    return sorted(kept, key=lambda item: (-item[1], item[0]))[:limit]


@hypothesis.settings(deadline=None)
@given(settings=st.sampled_from(SETTINGS), texts=st.lists(TEXT, max_size=4), block=st.integers(1, 5))
def test_what_the_tokenizer_looks_up_is_counted(tmp_path_factory, settings, texts, block):
    folder = tmp_path_factory.mktemp("counts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_BLOCK_ROWS", block)
        path = counted(settings, texts, folder / "a.arrow")
        again = counted(settings, ["".join(chunks(text)[half]) for text in texts for half in range(len(chunks(text)))], folder / "b.arrow")
    expected = looked_up(settings, texts)
    found = merge([path], 10_000)
    assert found.entries == best(expected, 10_000)
    assert (found.distinct, found.tokens) == (len(expected), expected.total())
    assert path.read_bytes() == again.read_bytes()


@hypothesis.settings(deadline=None)
@given(
    tables=st.lists(st.dictionaries(st.text("abcé😀", min_size=1, max_size=4), st.integers(1, 5)), max_size=5),
    limit=st.integers(1, 12), min_count=st.integers(1, 6), size=st.integers(1, 200), long=st.booleans(),
)  # fmt: skip
def test_tables_are_merged_exactly(tmp_path_factory, tables, limit, min_count, size, long):
    folder = tmp_path_factory.mktemp("tables")
    prefix = "x" * vocabulary._SPLITTER_BYTES if long else ""
    expected = Counter()
    paths = []
    for number, table in enumerate(tables):
        words = {prefix + word: count for word, count in table.items()}
        made = vocabulary.EntryCounter(config.Tokenizer(kind="word"))
        made.add(pa.array(list(words), pa.string()), np.array(list(words.values()), np.int64))
        paths.append(folder / str(number))
        made.write(paths[-1])
        expected.update(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_RANGE_BYTES", size)
        found = merge(paths, limit, min_count)
    assert found.entries == best(expected, limit, min_count)
    assert (found.distinct, found.tokens) == (len(expected), expected.total())


def test_ranges_are_small_and_files_are_not_kept_open(tmp_path, monkeypatch):
    maker = random.Random(1)
    tables = [{f"{maker.randrange(5000)}": maker.randrange(1, 9) for _ in range(300)} for _ in range(60)]
    expected = Counter()
    for number, table in enumerate(tables):
        made = vocabulary.EntryCounter(config.Tokenizer(kind="word"))
        made.add(pa.array(list(table)), np.array(list(table.values()), np.int64))
        made.write(tmp_path / str(number))
        expected.update(table)
    monkeypatch.setattr(vocabulary, "_RANGE_BYTES", 20_000)
    seen = []
    monkeypatch.setattr(vocabulary, "total", lambda table, real=vocabulary.total: (seen.append(table.nbytes), real(table))[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    try:
        found = merge([tmp_path / str(number) for number in range(60)], 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.entries == best(expected, 100)
    assert len(seen) > 10 and max(seen[1:]) <= 2 * 20_000


def test_bpe_counts_chunks_as_they_are(tmp_path):
    found = merge([counted(config.Tokenizer(kind="bpe"), ["a cat <unk> a\n", " a"], tmp_path / "a")], 9)
    assert found.entries == [(" a", 2), ("\n", 1), (" <unk>", 1), (" cat", 1), ("a", 1)]


def test_a_damaged_or_missing_table_is_named(tmp_path):
    path = counted(config.Tokenizer(kind="word"), ["some words"], tmp_path / "a")
    (tmp_path / "b").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PacklmError, match="b: not a table of counts"):
        merge([path, tmp_path / "b"], 5)
    with pytest.raises(PacklmError, match="missing: not a table of counts"):
        merge([tmp_path / "missing"], 5)


WORDS = st.text("abé😀 \x00", max_size=3)


@hypothesis.settings(deadline=None)
@given(blocks=st.lists(st.lists(st.tuples(WORDS, st.integers(0, 2**40)))), pending=st.integers(0, 6), limit=st.integers(0, 8))
def test_counts_add_up(blocks, pending, limit):
    expected = Counter()
    made = Counts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_PENDING_ROWS", pending)
        for block in blocks:
            made.add(pa.array([word for word, _ in block], pa.string()), np.array([count for _, count in block], np.int64))
            for word, count in block:
                expected[word.encode()] += count
    table = made.table()
    assert list(zip(*table.to_pydict().values(), strict=True)) == sorted(expected.items())
    best = sorted(expected.items(), key=lambda item: (-item[1], item[0]))[:limit]
    assert list(zip(*highest(table.rename_columns(["entry", "priority"]), limit).to_pydict().values(), strict=True)) == best


def test_memory_depends_on_the_distinct_strings(monkeypatch):
    monkeypatch.setattr(vocabulary, "_PENDING_ROWS", 10)
    made = Counts()
    for start in range(0, 1000, 5):
        made.add(pa.array([str((start + index) % 20) for index in range(5)]), np.ones(5, np.int64))
        assert sum(part.num_rows for part in made._parts) <= 20 + 20 + 5
    assert made.table().column("count").to_pylist() == [50] * 20

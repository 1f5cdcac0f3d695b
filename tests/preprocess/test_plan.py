"""Shards are runs of whole documents, in order, none empty, about equal."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config
from preprocess import plan


@given(sizes=st.lists(st.sampled_from([1, 2, 3, 50, 1000]), min_size=1, max_size=30), shards=st.integers(1, 12))
def test_every_document_is_in_one_shard(tmp_path_factory, sizes, shards):
    folder = tmp_path_factory.mktemp("sizes")
    for number, size in enumerate(sizes):
        (folder / f"{number:03d}").write_text("x" * size)
    settings = config.resolve({"corpus": {"train": str(folder)}})
    tasks = plan.tasks(plan.survey(settings, False), settings.corpus, shards)
    found = [[len(document.text) for document in plan.read(task, settings.corpus, False)] for task in tasks]
    assert len(found) == min(shards, len(sizes)) and all(found)
    assert [size for shard in found for size in shard] == sizes
    assert max(map(sum, found)) <= sum(sizes) / len(found) + 2 * max(sizes)


def test_lines_are_shared_by_number(tmp_path):
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(1000)))
    settings = config.resolve({"corpus": {"train": str(tmp_path / "lines"), "document": "line"}})
    tasks = plan.tasks(plan.survey(settings, False), settings.corpus, 7)
    assert [sum(1 for _ in plan.read(task, settings.corpus, False)) for task in tasks] == [142, 143, 143, 143, 143, 143, 143]


@pytest.mark.parametrize("other", [{}, {"test_fraction": 0.2}])
def test_a_fraction_is_the_share_it_says_and_follows_the_seed(other):
    rules = config.Corpus(validation_fraction=0.1, **other)
    drawn = [plan.split_of(f"name {number}", "train", rules) for number in range(2000)]
    assert 150 < Counter(drawn)["validation"] < 250
    assert [split == "validation" for split in drawn] == [
        plan.split_of(f"name {number}", "train", config.Corpus(validation_fraction=0.1)) == "validation" for number in range(2000)
    ]
    assert drawn != [plan.split_of(f"name {number}", "train", rules.model_copy(update={"split_seed": 2})) for number in range(2000)]
    assert plan.split_of("name 1", "test", rules) == "test"

"""Shards are consecutive whole documents, in order, none empty, about equal in bytes; every document is in one of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm import config
from packlm.corpus import streams
from packlm.dataset import SPLITS
from packlm.text.document_block import DocumentBlock
from preprocess.build import duplicates, extract, scan
from preprocess.build.plan import plan_shards


def planned(folder, shards=4, part_bytes=1 << 25, block=1 << 22, **rules):
    """(plans of the shards, documents of each, counts of what extraction skipped) of a corpus in `folder / "corpus"`."""
    settings = config.resolve({"corpus": {"train": str(folder / "corpus"), "sentences": "none", **rules}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "PART_BYTES", part_bytes)
        patch.setattr(streams, "BLOCK", block)
        tasks = extract.tasks(scan.scan_corpus(settings, folder / "downloads"), settings.corpus, "", folder / "extracted")
        for task in tasks:
            extract.run(task)
            assert task.is_complete()
    extracted, counts = extract.results(tasks)
    if settings.corpus.duplicates == "skip":
        extracted, counts["duplicates"] = duplicates.skip(extracted, [task.keys for task in tasks])
    plans = plan_shards(extracted, shards)
    return plans, [[pair for texts, _ in plan.read() for pair in texts] for plan in plans], counts


SIZES = st.lists(st.sampled_from([1, 2, 3, 50, 1000]), min_size=1, max_size=30)
TEXTS = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("abcde")), min_size=1, max_size=20)


@given(sizes=SIZES, shards=st.integers(1, 12), part_bytes=st.sampled_from([1, 60, 5000]))
def test_every_document_is_in_one_shard(tmp_path_factory, sizes, shards, part_bytes):
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "corpus").mkdir()
    for number, size in enumerate(sizes):
        (folder / "corpus" / f"{number:03d}").write_text("x" * size)
    tasks, found, _ = planned(folder, shards, part_bytes)
    assert len(found) == min(shards, len(sizes)) and all(found)
    assert [pair for shard in found for pair in shard] == [(f"corpus/{number:03d}", "x" * size) for number, size in enumerate(sizes)]
    assert max(sum(len(text) for _, text in shard) for shard in found) <= sum(sizes) / len(found) + 2 * max(sizes)
    assert [task.name for task in tasks] == [f"train-{index:05d}-of-{len(tasks):05d}" for index in range(len(tasks))]


@pytest.mark.parametrize("part_bytes", [1, 700, 1 << 25])
def test_parts_and_blocks_do_not_change_the_shards(tmp_path, part_bytes, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("".join(f"line {number}\n\n" for number in range(500)))
    (tmp_path / "corpus" / "b.txt").write_text("last")
    rules = {"document": "line", "validation_fraction": 0.2, "test_fraction": 0.2}
    _, found, counts = planned(tmp_path, 3, part_bytes, **rules)
    expected = [(f"corpus/a.txt:{2 * number + 1}", f"line {number}\n") for number in range(500)] + [("corpus/b.txt:1", "last")]
    assert sorted(pair for shard in found for pair in shard) == sorted(expected)
    assert counts == {"empty documents skipped": 500}
    reference = tmp_path / "reference"
    reference.mkdir()
    (tmp_path / "corpus").rename(reference / "corpus")
    assert found == planned(reference, 3, **rules)[1]


@pytest.mark.parametrize("other", [{}, {"test_fraction": 0.2}])
def test_a_fraction_is_its_share_and_depends_on_the_seed(other):
    texts = DocumentBlock.of((f"name {number}", "x") for number in range(2000))

    def drawn(given="train", **rules):
        return extract.split_indices(texts, given, config.Corpus(validation_fraction=0.1, **rules))

    held_out = drawn(**other) == SPLITS.index("validation")
    assert 150 < held_out.sum() < 250
    assert np.array_equal(held_out, drawn() == SPLITS.index("validation"))
    assert not np.array_equal(drawn(), drawn(split_seed=2))
    assert set(drawn("test")) == {SPLITS.index("test")}


@given(texts=TEXTS.filter(lambda drawn: "train" in dict(drawn)), part_bytes=st.sampled_from([1, 4, 1 << 25]), block=st.sampled_from([1, 6]))
def test_of_duplicates_one_is_kept_and_held_out_ones_first(tmp_path_factory, texts, part_bytes, block):
    folder = tmp_path_factory.mktemp("again")
    for number, (split, text) in enumerate(texts):
        (folder / split).mkdir(exist_ok=True)
        (folder / split / f"{number:03d}").write_text(text)
    places = {split: str(folder / split) for split in SPLITS if (folder / split).exists()}
    _, found, counts = planned(folder, 3, part_bytes, block, duplicates="skip", **places)
    order = sorted(enumerate(texts), key=lambda item: (-SPLITS.index(item[1][0]), item[0]))
    first = {text: f"{split}/{number:03d}" for number, (split, text) in reversed(order)}
    assert sorted((text, name) for shard in found for name, text in shard) == sorted(first.items())
    assert counts["duplicates"] == len(texts) - len(first)


def test_sentences_are_found_where_they_were_cut(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("Ein Bär. Noch einer.\nÜber Nacht kam er. Ja.\nZwei.\n")
    plans, _, _ = planned(tmp_path, 2, document="line", sentences="sentencex", language="de")
    pieces = []
    for texts, starts in (block for plan in plans for block in plan.read()):
        bounds = [*starts.tolist(), len(texts.data)]
        pieces += [bytes(texts.data[start:end]).decode().strip() for start, end in pairwise(bounds)]
    assert pieces == ["Ein Bär.", "Noch einer.", "Über Nacht kam er.", "Ja.", "Zwei."]

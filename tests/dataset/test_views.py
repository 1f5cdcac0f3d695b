"""Both views, read back through `datasets`, hold what was written."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences, Stream
from tests import random_dataset


def written(seed, count):
    return random_dataset.documents(seed, count)


def test_sentences_come_back_in_order(random_data):
    folder, manifest = random_data
    sentences = Sentences.open(folder, manifest, "train")
    expected = [sentence for document in written(1, 30) for sentence in document]
    assert len(sentences) == len(expected) and sentences.eos == random_dataset.EOS
    assert sentences.tokens == manifest.split("train").tokens
    for index, sentence in enumerate(expected):
        assert sentences.targets(index).tolist() == sentence.tolist()
        assert sentences.lengths[index] == len(sentence)
    some = np.array([7, 0, len(expected) - 1, 30, 7])
    inputs, targets = sentences.read(some)
    assert targets.tolist() == np.concatenate([expected[index] for index in some]).tolist()
    assert inputs.tolist() == np.concatenate([[random_dataset.EOS, *expected[index][:-1]] for index in some]).tolist()
    assert sentences.read(some[:0])[0].tolist() == []


def test_pieces_of_sentences_read_the_id_before_them(random_data):
    sentences = Sentences.open(*random_data, "train")
    long = np.flatnonzero(sentences.lengths >= 5)[:3]
    inputs, targets = sentences.pieces(long, np.array([0, 2, 3]), np.array([2, 3, 1]))
    whole = [sentences.targets(index).tolist() for index in long]
    assert targets.tolist() == [*whole[0][:2], *whole[1][2:5], whole[2][3]]
    assert inputs.tolist() == [random_dataset.EOS, whole[0][0], *whole[1][1:4], whole[2][2]]


def test_ranks_count_ids_in_shares_that_make_up_the_split(random_data):
    folder, manifest = random_data
    sentences = Sentences.open(folder, manifest, "train")
    ids = np.concatenate([sentence for document in written(1, 30) for sentence in document])
    whole = sentences.counts(manifest.vocab_size, 0, 1)
    assert whole.tolist() == np.bincount(ids, minlength=manifest.vocab_size).tolist()
    shares = [sentences.counts(manifest.vocab_size, rank, 2) for rank in range(2)]
    assert (shares[0] + shares[1]).tolist() == whole.tolist() and all(0 < share.sum() < len(ids) for share in shares)
    batch = np.array([9, 1, 2, 0, 3, 0, 9])  # of which some ids belong to no sentence here
    assert Sentences([(batch, np.array([1, 4, 6]))]).counts(4, 0, 1).tolist() == [2, 1, 1, 1]


def test_the_stream_is_all_targets_end_to_end_across_rows_and_shards(random_data):
    folder, manifest = random_data
    stream = Stream.open(folder, manifest, "train")
    documents = [np.concatenate(document) for document in written(1, 30)]
    ids = np.concatenate(documents)
    assert len(stream) == len(ids)
    inputs, targets = stream.read(0, len(ids))
    assert targets.tolist() == ids.tolist()
    assert inputs.tolist() == [random_dataset.EOS, *ids[:-1].tolist()]
    assert stream.opens.tolist() == np.cumsum([0, *map(len, documents[:-1])]).tolist()
    for start, stop in ((0, 1), (5, 8), (len(ids) - 1, len(ids)), (3, 40), (len(ids) // 2 - 9, len(ids) // 2 + 9)):
        assert stream.read(start, stop)[1].tolist() == ids[start:stop].tolist()
    starts, stops = np.array([40, 3, 3, len(ids) - 2]), np.array([55, 3, 9, len(ids)])
    assert stream.read(starts, stops)[1].tolist() == [*ids[40:55], *ids[3:9], *ids[-2:]]
    starts, stops = stream.rows(np.arange(stream.num_rows))
    assert starts[1:].tolist() == stops[:-1].tolist() and starts[0] == 0 and stops[-1] == len(ids)


def test_views_in_memory_equal_views_on_disk(random_data):
    folder, manifest = random_data
    stream, sentences = Stream.open(folder, manifest, "validation"), Sentences.open(folder, manifest, "validation")
    ids = stream.read(0, len(stream))[1]
    in_memory = Stream.from_arrays(ids, stream.opens, random_dataset.EOS)
    assert in_memory.read(2, 30)[0].tolist() == stream.read(2, 30)[0].tolist()
    again = Sentences.from_arrays(ids, np.cumsum(sentences.lengths))
    assert all(np.array_equal(again.targets(index), sentences.targets(index)) for index in range(len(sentences)))


@pytest.mark.parametrize("view", [Sentences, Stream])
def test_a_view_that_is_not_what_the_manifest_says_is_refused(random_data, view):
    folder, manifest = random_data
    split = manifest.split("validation")
    other = replace(manifest, splits=manifest.splits | {"validation": replace(split, tokens=split.tokens + 1)})
    with pytest.raises(PacklmError, match=rf"has {split.tokens} tokens, the manifest says {split.tokens + 1}; .*--rebuild"):
        view.open(folder, other, "validation")


@pytest.mark.parametrize("view", [Sentences, Stream])
def test_an_id_beyond_the_vocabulary_is_named_before_anything_is_read(random_data, view):
    folder, manifest = random_data
    with pytest.raises(PacklmError, match=r"parquet: holds the id 16, but the vocabulary has 16; not a dataset"):
        view.open(folder, replace(manifest, vocab_size=16), "train")


def test_shards_are_converted_once_wherever_they_lie(random_data, tmp_path, monkeypatch):
    """`datasets` takes a second to import, and is not needed again."""
    expected = Stream.open(random_data.folder, random_data.manifest, "train").read(0, 50)
    elsewhere = shutil.copytree(random_data.folder, tmp_path / "elsewhere")
    monkeypatch.setitem(sys.modules, "datasets", None)  # to import it is an error
    actual = Stream.open(elsewhere, random_data.manifest, "train").read(0, 50)
    assert all(np.array_equal(*pair) for pair in zip(expected, actual, strict=True))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"features": 1}', '{"features": {"ids": {"_type": "Unknown"}}}', '{"version": []}'])
def test_a_damaged_description_of_the_cache_does_not_matter(random_data, tmp_path, monkeypatch, content):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    expected = Stream.open(random_data.folder, random_data.manifest, "train").read(0, 50)
    (description,) = tmp_path.rglob("dataset_info.json")
    description.write_text(content)
    actual = Stream.open(random_data.folder, random_data.manifest, "train").read(0, 50)
    assert all(np.array_equal(*pair) for pair in zip(expected, actual, strict=True))


def test_a_conversion_that_was_killed_is_done_again(random_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    expected = Stream.open(random_data.folder, random_data.manifest, "train").read(0, 50)
    (record,), (arrow_file,) = tmp_path.rglob("packlm.json"), tmp_path.rglob("*.arrow")
    record.unlink()
    arrow_file.unlink()
    actual = Stream.open(random_data.folder, random_data.manifest, "train").read(0, 50)
    assert all(np.array_equal(*pair) for pair in zip(expected, actual, strict=True)) and not caplog.text

"""Every target is trained on once an epoch, in batches that do not depend on the number of ranks."""

import numpy as np
import pytest

from pipeline.errors import RequestError
from train.batches import RowPlan, SentencePlan, StreamPlan, equal_shares
from train.views import Sentences, Stream

WORLDS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def sentences(made):
    return Sentences.open(*made, "train")


@pytest.fixture(scope="module")
def stream(made):
    return Stream.open(*made, "train")


def plans(sentences, stream):
    return {
        "sentences": SentencePlan(sentences, 20, seed=1),
        "rows": RowPlan(stream, 6, 20, seed=1),
        "streams": StreamPlan.even(stream, 5, 7, reset=True),
        "no-reset": StreamPlan.even(stream, 5, 7, reset=False),
    }


@pytest.mark.parametrize("kind", ["sentences", "rows", "streams", "no-reset"])
def test_an_epoch_holds_every_target_once_on_any_number_of_ranks(kind, sentences, stream):
    plan = plans(sentences, stream)[kind]
    ids = stream.read(0, len(stream))[1]
    for world in WORLDS:
        seen = []
        for step in range(plan.num_steps):
            shares = [plan.share(0, step, rank, world) for rank in range(world)]
            tokens = [sum(map(len, share.targets)) for share in shares]
            assert all(share.global_tokens == sum(tokens) for share in shares)
            assert all(share.global_segments == sum(len(share.targets) for share in shares) for share in shares)
            seen += [target for share in shares for target in share.targets]
        assert sorted(np.concatenate(seen).tolist()) == sorted(ids.tolist())


@pytest.mark.parametrize("kind", ["sentences", "rows", "streams"])
def test_the_segments_of_a_step_are_the_same_for_any_number_of_ranks(kind, sentences, stream):
    plan = plans(sentences, stream)[kind]
    for step in range(plan.num_steps):
        whole = plan.share(3, step, 0, 1)
        for world in WORLDS[1:]:
            shares = [plan.share(3, step, rank, world) for rank in range(world)]
            assert [key for share in shares for key in share.keys] == whole.keys
            joined = [target.tolist() for share in shares for target in share.targets]
            assert joined == [target.tolist() for target in whole.targets]


def test_segments_read_the_id_before_each_target(sentences, stream):
    for plan in plans(sentences, stream).values():
        for step in range(plan.num_steps):
            share = plan.share(0, step, 0, 1)
            for inputs, targets in zip(share.inputs, share.targets, strict=True):
                assert inputs[1:].tolist() == targets[:-1].tolist()


def test_sentences_of_a_batch_are_of_like_length_and_within_the_budget(sentences):
    plan = SentencePlan(sentences, 20, seed=1)
    by_length = np.sort(sentences.lengths)
    for step in range(plan.num_steps):
        lengths = sentences.lengths[plan.indices(0, step)]
        assert lengths.sum() < 20 + lengths.max()
        # A batch is a run of the sorted lengths, so at most as uneven as such a run.
        low, high = np.searchsorted(by_length, lengths.min(), "left"), np.searchsorted(by_length, lengths.max(), "right")
        assert high - low >= len(lengths) and lengths.max() - lengths.min() <= 9


def test_epochs_differ_and_repeat_themselves(sentences, stream):
    for plan in (SentencePlan(sentences, 20, 1), RowPlan(stream, 6, 20, 1)):
        first, second = ([plan.share(epoch, step, 0, 1).keys for step in range(plan.num_steps)] for epoch in (0, 1))
        assert first != second
        assert first == [plan.share(0, step, 0, 1).keys for step in range(plan.num_steps)]


def test_shares_are_equal_in_tokens_to_one_segment():
    generator = np.random.default_rng(1)
    for _ in range(200):
        lengths, world = generator.integers(1, 30, generator.integers(1, 40)), int(generator.integers(1, 6))
        shares = [lengths[equal_shares(lengths, rank, world)] for rank in range(world)]
        assert np.concatenate(shares).tolist() == lengths.tolist()
        assert all(abs(share.sum() - lengths.sum() / world) <= lengths.max() for share in shares)


def test_a_stream_is_cut_where_a_document_begins_and_what_follows_starts_from_zero(stream):
    plan = StreamPlan.even(stream, 5, 7, reset=True)
    opens = set(stream.opens.tolist())
    for step in range(plan.num_steps):
        share = plan.share(0, step, 0, 1)
        for key, take, target in zip(share.keys, share.take, share.targets, strict=True):
            assert not opens & set(range(key + 1, key + len(target)))
            assert (take >= 0) == (step > 0 and key not in opens)


def test_streams_belong_to_ranks_in_order_and_document_streams_to_documents(stream):
    plan = StreamPlan.even(stream, 5, 7, reset=False)
    for world in WORLDS:
        assert [number for rank in range(world) for number in plan.mine(rank, world)] == list(range(5))
        owners = [s * world // 5 for s in range(5)]
        assert all(owners[number] == rank for rank in range(world) for number in plan.mine(rank, world))
    bounds = StreamPlan.documents(stream, 4, 7).bounds
    assert set(bounds[:-1].tolist()) <= set(stream.opens.tolist()) and bounds[-1] == len(stream)


def test_what_cannot_be_planned_is_refused_by_name(sentences, stream):
    with pytest.raises(RequestError, match=r"train\.global_batch_tokens: 3 is less than the longest sentence"):
        SentencePlan(sentences, 3, 1)
    with pytest.raises(RequestError, match=r"train\.global_batch_tokens: 5 is less than a row, 6"):
        RowPlan(stream, 6, 5, 1)
    with pytest.raises(RequestError, match=r"train\.streams"):
        StreamPlan.even(stream, len(stream) + 1, 7, reset=True)

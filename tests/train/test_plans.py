"""Every target is trained on once per epoch, in batches that do not depend on the number of parts."""

import itertools

import numpy as np
import pytest

from packlm import config
from packlm.base.errors import RequestError
from packlm.batches.stream_plan import StreamPlan
from packlm.dataset.views import Sentences, Stream
from train.batches import sentence_plan
from train.batches.row_plan import RowPlan
from train.batches.sentence_plan import SentencePlan
from train.optim.schedule import Schedule

PARTS = (1, 2, 3, 4)
KINDS = ("sentences", "equal", "cut", "rows", "streams", "no-reset", "sampled-windows")


@pytest.fixture(scope="module")
def sentences(random_data):
    return Sentences.open(*random_data, "train")


@pytest.fixture(scope="module")
def stream(random_data):
    return Stream.open(*random_data, "train")


@pytest.fixture(params=KINDS)
def plan(request, sentences, stream):
    return {
        "sentences": lambda: SentencePlan(sentences, 20, seed=1),
        "equal": lambda: SentencePlan(sentences, 20, seed=1, grouping="equal"),
        "cut": lambda: SentencePlan(sentences, 4, seed=1, on_overlong="cut"),
        "rows": lambda: RowPlan(stream, 6, 20, seed=1),
        "streams": lambda: StreamPlan.even(stream, 5, 7, reset=True),
        "no-reset": lambda: StreamPlan.even(stream, 5, 7, reset=False),
        "sampled-windows": lambda: StreamPlan.even(stream, 5, 7, reset=True, seed=1),
    }[request.param]()


def split(share):
    """(key, inputs, targets) of each segment of a share."""
    ends = np.cumsum(share.lengths).tolist()
    runs = zip(share.keys.tolist(), [0, *ends], ends, strict=False)
    return [(key, share.inputs[start:end].tolist(), share.targets[start:end].tolist()) for key, start, end in runs]


def all_shares(plan, parts, epoch=0):
    return [[plan.share(epoch, step, part, parts) for part in range(parts)] for step in range(plan.steps(epoch))]


@pytest.mark.parametrize("parts", PARTS)
def test_an_epoch_holds_every_target_once_in_any_number_of_parts(plan, stream, parts):
    ids, seen = stream.read(0, len(stream))[1], []
    for shares in all_shares(plan, parts):
        assert all(share.global_tokens == sum(len(other.targets) for other in shares) for share in shares)
        assert all(share.global_segments == sum(len(split(other)) for other in shares) for share in shares)
        assert all(share.lengths.sum() == len(share.targets) == len(share.inputs) for share in shares)
        seen += [share.targets for share in shares]
    assert sorted(np.concatenate(seen).tolist()) == sorted(ids.tolist())


@pytest.mark.parametrize("parts", PARTS[1:])
def test_the_segments_of_a_step_are_the_same_for_any_number_of_parts(plan, parts):
    for (single,), shares in zip(all_shares(plan, 1, 3), all_shares(plan, parts, 3), strict=True):
        assert sorted(itertools.chain(*map(split, shares))) == sorted(split(single))
        assert {share.window for share in shares} == {single.window}


def test_a_segment_reads_what_precedes_each_target_in_its_document(plan, sentences, stream):
    """By a plain loop over the documents: a segment is a run of the text, and reads the id before each target."""
    ids = stream.read(0, len(stream))[1].tolist()
    before = [stream.eos, *ids[:-1]]
    ends = np.cumsum(sentences.lengths).tolist()
    for shares in all_shares(plan, 2):
        for key, inputs, targets in itertools.chain(*map(split, shares)):
            if plan.unit == "targets":
                start = key
            elif key < len(sentences):
                start = ends[key] - int(sentences.lengths[key])
            else:
                sentence, offset = plan._pieces[:, key - len(sentences)]
                start = ends[sentence] - int(sentences.lengths[sentence]) + int(offset)
            assert targets == ids[start : start + len(targets)]
            assert inputs == before[start : start + len(targets)]


def test_epochs_differ_and_are_reproducible(plan):
    first, second = ([split(shares[0]) for shares in all_shares(plan, 1, epoch)] for epoch in (0, 1))
    assert first == [split(shares[0]) for shares in all_shares(plan, 1)]
    assert (first != second) == (not isinstance(plan, StreamPlan) or plan.windows.seed is not None)


def test_sentences_of_a_batch_are_neighbours_in_length_and_within_the_budget(sentences):
    plan = SentencePlan(sentences, 20, seed=1)
    batches = [sentences.lengths[plan.indices(0, step)].tolist() for step in range(plan.steps(0))]
    assert all(sum(batch) - batch[-1] < 20 and batch == sorted(batch) for batch in batches)
    assert list(itertools.chain(*sorted(batches, key=lambda batch: (batch[0], batch[-1])))) == sorted(sentences.lengths.tolist())
    # The batch that a sentence belongs to is that in which it starts, all sentences laid end to end from the shortest.
    expected, start = {}, 0
    for length in sorted(sentences.lengths.tolist()):
        expected.setdefault(start // 20, []).append(length)
        start += length
    assert sorted(batches) == sorted(expected.values())


def test_sentences_of_a_batch_have_one_length_where_that_is_asked_for(sentences, caplog):
    caplog.set_level("INFO", "packlm")
    plan = SentencePlan(sentences, 20, seed=1, grouping="equal")
    batches = [plan.share(0, step, 0, 1).lengths for step in range(plan.steps(0))]
    assert all(len(set(lengths.tolist())) == 1 and lengths.sum() <= 20 for lengths in batches)
    for length in np.unique(sentences.lengths):
        short = [lengths.sum() + length <= 20 for lengths in batches if lengths[0] == length]
        assert sum(short) <= 1  # only the last batch of a length has room for another sentence
    assert f"{len(batches)} updates an epoch, {SentencePlan(sentences, 20, seed=1).steps(0)} with similar ones" in caplog.text


def test_each_epoch_puts_other_sentences_together_and_batches_in_another_order(sentences):
    plan = SentencePlan(sentences, 20, seed=1)
    first, second = ([plan.indices(epoch, step) for step in range(plan.steps(epoch))] for epoch in (0, 1))
    assert {frozenset(batch.tolist()) for batch in first} != {frozenset(batch.tolist()) for batch in second}
    lengths = [[sentences.lengths[batch].tolist() for batch in batches] for batches in (first, second)]
    assert lengths[0] != lengths[1] and sorted(lengths[0]) == sorted(lengths[1]) != lengths[0]


def test_parts_are_equal_in_tokens_and_in_time_steps_to_one_sentence(sentences):
    plan = SentencePlan(sentences, 40, seed=1)
    for parts in PARTS[1:]:
        for step, shares in enumerate(all_shares(plan, parts)):
            lengths = np.sort(sentences.lengths[plan.indices(0, step)])[::-1]
            tokens = [len(share.targets) for share in shares]
            assert max(tokens) - min(tokens) <= lengths[0]
            # No part has a longer sentence than it must: their longest are the longest of the batch.
            longest = [int(share.lengths.max()) for share in shares if len(share.lengths)]
            assert longest == lengths[: len(longest)].tolist()


def test_an_overlong_sentence_is_cut_into_pieces_that_fill_the_budget(sentences, caplog):
    caplog.set_level("INFO", "packlm")
    plan = SentencePlan(sentences, 4, seed=1, on_overlong="cut")
    long = [length for length in sentences.lengths.tolist() if length > 4]
    more = sum(-(-length // 4) - 1 for length in long)
    assert f"cut {len(long)} sentences longer than train.global_batch_tokens (4) into {more} more pieces" in caplog.text
    assert plan.lengths.max() == 4 and len(plan.lengths) == len(sentences) + more


def test_windows_are_sampled_as_in_awd_lstm_and_the_learning_rate_is_proportional_to_them(stream):
    long = Stream.from_arrays(np.tile(stream.read(0, len(stream))[1], 600), np.zeros(1), 0)
    plan = StreamPlan.even(long, 1, 70, reset=False, seed=3)
    lengths = np.diff(plan.windows.of(0))
    assert lengths.min() >= 5 and len(lengths) > 1000
    half = lengths < 52
    assert abs(half.mean() - 0.05) < 5 * (0.05 * 0.95 / len(lengths)) ** 0.5
    # Whole numbers are cut off, not rounded: half of one below the mean of the draws.
    for sampled, mean in ((lengths[~half], 69.5), (lengths[half], 34.5)):
        assert abs(sampled.mean() - mean) < 5 * 5 / len(sampled) ** 0.5 and 4 < sampled.std() < 6.5
    schedule = Schedule(config.Train(window=70, window_drawn=True, lr=1.0, schedule="constant"), 1000)
    assert [schedule.lr(step, 0, plan.share(0, step, 0, 1).window) for step in range(5)] == pytest.approx(lengths[:5] / 70)
    assert not np.array_equal(plan.windows.of(0)[:9], plan.windows.of(1)[:9])


def test_a_stream_is_cut_where_a_document_begins_and_what_follows_starts_from_zero(stream):
    for seed in (None, 1):
        plan = StreamPlan.even(stream, 5, 7, reset=True, seed=seed)
        opens = set(stream.opens.tolist())
        for step in range(plan.steps(0)):
            share = plan.share(0, step, 0, 1)
            for key, take, length in zip(share.keys.tolist(), share.initial_streams.tolist(), share.lengths.tolist(), strict=True):
                assert not opens & set(range(key + 1, key + length))
                assert (take >= 0) == (step > 0 and key not in opens)


@pytest.mark.parametrize("reset", [True, False])
def test_a_stream_continues_from_its_final_state(stream, reset):
    """The segment that starts from a stream's state begins where the segment that the state is of ended."""
    for parts in PARTS:
        for part in range(parts):
            plan = StreamPlan.even(stream, 5, 7, reset)
            stream_ends: dict[int, int] = {}
            for step in range(plan.steps(0)):
                share = plan.share(0, step, part, parts)
                ends = share.keys + share.lengths
                for key, take in zip(share.keys.tolist(), share.initial_streams.tolist(), strict=True):
                    assert take < 0 or stream_ends[take] == key
                assert (step > 0 and not reset) <= bool((share.initial_streams >= 0).all())
                for slot, segment in enumerate(share.final_segments.tolist()):
                    if segment >= 0:
                        stream_ends[slot] = int(ends[segment])
            bounds = plan.bounds[plan.streams_of(part, parts).start + 1 : plan.streams_of(part, parts).stop + 1]
            assert [stream_ends[slot] for slot in range(len(bounds))] == bounds.tolist()


def test_streams_belong_to_parts_in_order_and_document_streams_to_documents(stream):
    plan = StreamPlan.even(stream, 5, 7, reset=False)
    for parts in PARTS:
        assert [number for part in range(parts) for number in plan.streams_of(part, parts)] == list(range(5))
        owners = [s * parts // 5 for s in range(5)]
        assert all(owners[number] == part for part in range(parts) for number in plan.streams_of(part, parts))
    bounds = StreamPlan.documents(stream, 4, 7).bounds
    assert set(bounds[:-1].tolist()) <= set(stream.opens.tolist()) and bounds[-1] == len(stream)


def test_the_order_by_length_is_a_stable_sort_for_any_block_size(monkeypatch):
    lengths = np.random.default_rng(1).integers(1, 50, 1000).astype(np.int32)
    for block in (1, 7, 1000, 5000):
        monkeypatch.setattr(sentence_plan, "_BLOCK", block)
        order = sentence_plan._sort_by_length(lengths, sentence_plan._count_lengths(lengths))
        assert order.tolist() == np.argsort(lengths, kind="stable").tolist()


def test_impossible_plans_are_refused_naming_the_setting(sentences, stream):
    with pytest.raises(RequestError, match=r'train\.global_batch_tokens: 3 is less than the longest sentence.* train\.on_overlong = "cut"'):
        SentencePlan(sentences, 3, 1)
    with pytest.raises(RequestError, match=r"train\.global_batch_tokens: 5 is less than a row, 6"):
        RowPlan(stream, 6, 5, 1)
    with pytest.raises(RequestError, match=r"train\.streams"):
        StreamPlan.even(stream, len(stream) + 1, 7, reset=True)

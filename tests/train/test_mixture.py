"""Mixtures of datasets: the same shares in every update, each dataset read in its own order again and again."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.dataset import Manifest
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.model import folder as model_folder
from tests import random_dataset
from tests.train.resume.test_continuation import run_killed, settings, tree
from tests.train.test_plans import all_shares, split
from train import record, setup, stage
from train.batches.mixture import MixturePlan, divided, open_mixture
from train.batches.row_plan import RowPlan
from train.batches.sentence_plan import SentencePlan
from train.batches.stream_mixture import StreamMixturePlan
from train.trainer import Trainer

PARTS = (1, 2, 3)
Data = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Data]:
    """A small dataset and a large one with the tokenizer of `random_data`."""
    folders = [tmp_path_factory.mktemp(name) for name in ("small", "large")]
    return [(folder, random_dataset.write(folder, seed, (count, 2))) for folder, seed, count in zip(folders, (5, 9), (6, 60), strict=True)]


def stateless(kind: str, datasets: list[Data]) -> MixturePlan:
    if kind == "rows":
        return MixturePlan(
            [RowPlan(Stream.open(*data, "train"), 6, tokens, seed=1) for data, tokens in zip(datasets, (13, 7), strict=True)]
        )
    return MixturePlan(
        [SentencePlan(Sentences.open(*data, "train"), tokens, seed=1) for data, tokens in zip(datasets, (24, 10), strict=True)]
    )


@pytest.mark.parametrize("kind", ["sentences", "rows"])
def test_each_update_has_the_next_batch_of_every_dataset(kind: str, random_data: Data, others: list[Data]) -> None:
    datasets = [random_data, others[0]]
    plan = stateless(kind, datasets)
    own = stateless(kind, datasets).plans
    tokens = [one.targets for one in own]
    assert plan.steps(0) == plan.steps(7)
    shares = [plan.share(epoch, step, 0, 1) for epoch in range(3) for step in range(plan.steps(epoch))]
    for number, share in enumerate(shares):
        expected = [one.share(number // one.steps(0), number % one.steps(0), 0, 1) for one in own]
        segments = [split(other) for other in expected]
        offset = own[0].keys
        assert split(share) == segments[0] + [(key + offset, *ids) for key, *ids in segments[1]]
        assert share.global_tokens == len(share.targets)
    per_epoch = sum(len(share.targets) for share in shares) / 3
    assert per_epoch == pytest.approx(sum(tokens), rel=0.1)


@pytest.mark.parametrize("parts", PARTS[1:])
@pytest.mark.parametrize("kind", ["sentences", "rows", "streams", "sampled"])
def test_any_number_of_parts_has_the_same_segments(kind: str, parts: int, random_data: Data, others: list[Data]) -> None:
    datasets = [random_data, others[1]]
    plan = streams_of(datasets, (3, 2), sampled=kind == "sampled") if kind in ("streams", "sampled") else stateless(kind, datasets)
    for epoch in (0, 2):
        for (single,), shares in zip(all_shares(plan, 1, epoch), all_shares(plan, parts, epoch), strict=True):
            assert sorted(itertools.chain(*map(split, shares))) == sorted(split(single))
            assert {(share.global_tokens, share.global_segments) for share in shares} == {(len(single.targets), len(single.lengths))}
            assert {share.window for share in shares} == {single.window}


def streams_of(datasets: list[Data], counts: tuple[int, ...], reset: bool = True, sampled: bool = False) -> StreamMixturePlan:
    streams = [Stream.open(*data, "train") for data in datasets]
    plan = StreamMixturePlan(streams, counts, 7, reset, seed=1 if sampled else None)
    assert plan.windows.longest % 7  # an epoch ends within a window
    return plan


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("parts", PARTS)
def test_a_stream_is_read_again_and_again(reset: bool, parts: int, random_data: Data, others: list[Data]) -> None:
    """By a plain loop: what each stream has read since its state was zero, against its own text repeated without end."""
    datasets, counts = [random_data, others[0]], (4, 2)
    plan = streams_of(datasets, counts, reset)
    texts = []  # of each stream: its targets, and which of them start from the zero state
    for (folder, manifest), count in zip(datasets, counts, strict=True):
        stream = Stream.open(folder, manifest, "train")
        ids = stream.read(0, len(stream))[1].tolist()
        bounds = [index * len(ids) // count for index in range(count + 1)]
        for begin, end in itertools.pairwise(bounds):
            opens = {begin, *(stream.opens.tolist() if reset else ())}
            texts.append([(ids[index], index in opens) for index in range(begin, end)])
    num_read, histories = 0, [[] for _ in range(plan.streams)]  # targets since the zero state, of each stream of the plan
    for epoch in range(4):
        for step in range(plan.steps(epoch)):
            shares = [plan.share(epoch, step, part, parts) for part in range(parts)]
            histories = [
                history for part, share in enumerate(shares) for history in carried(share, histories, plan.streams_of(part, parts))
            ]
            num_read += len(np.concatenate([share.targets for share in shares])) // plan.streams
            assert sorted(histories) == sorted(expected_history(text, num_read) for text in texts)
        assert num_read == (epoch + 1) * plan.windows.longest


def carried(share: Segments, histories: list[list[int]], streams: range) -> list[list[int]]:
    """What the streams of a part have read since their state was zero, after a share of a batch."""
    after = [histories[stream] for stream in streams]
    runs = []
    for (_, _, targets), stream in zip(split(share), share.initial_streams.tolist(), strict=True):
        runs.append((histories[streams.start + stream] if stream >= 0 else []) + targets)
    for index, segment in enumerate(share.final_segments.tolist()):
        if segment >= 0:
            after[index] = runs[segment]
    return after


def expected_history(text: list[tuple[int, bool]], num_read: int) -> list[int]:
    history: list[int] = []
    for index in range(num_read):
        id, starts = text[index % len(text)]
        history = [id] if starts else [*history, id]
    return history


@pytest.mark.parametrize(
    ("total", "shares", "numbers"),
    [(20, [0.7, 0.3], [14, 6]), (3, [0.98, 0.01, 0.01], [1, 1, 1]), (10, [1 / 3] * 3, [4, 3, 3]), (5, [1.0], [5])],
)
def test_whole_numbers_in_shares(total: int, shares: list[float], numbers: list[int]) -> None:
    assert divided(total, shares, "train.streams") == numbers


def test_rows_are_shared_whole(random_data: Data, others: list[Data], tmp_path: Path) -> None:
    """Of 40 tokens 6 rows of 6: 4 and 2, however many tokens a quarter is."""
    config = settings(random_data[0], tmp_path, segments="rows", global_batch_tokens=40, mix={str(others[1][0]): 0.3})
    plan = setup.open_plan(config, open_mixture(config, random_data[1]), Ranks(0, 1, torch.device("cpu")))
    assert isinstance(plan, MixturePlan)
    assert [len(one.share(0, 0, 0, 1).targets) // 6 for one in plan.plans] == [4, 2]


def mixed(data: Data, run: Path, others: list[Data], **train: Any) -> configuration.Config:
    mix = {str(folder): share for (folder, _), share in zip(others, (0.25, 0.35), strict=False)}
    return settings(data[0], run, optimizer="adamw", lr=0.05, mix=mix, **train)


@pytest.mark.parametrize("segments", ["streams", "sentences", "rows"])
def test_an_interrupted_training_ends_the_same(
    segments: str, random_data: Data, others: list[Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"segments": segments, "global_batch_tokens": 40, "epochs": 2, "milestones": [50]}
    whole, killed = (mixed(random_data, tmp_path / name, others, **train) for name in ("whole", "killed"))
    manifest = random_data[1]
    stage.run(whole, manifest)
    run_killed(monkeypatch, killed, manifest, lambda state: state.epoch == 1)
    stage.run(killed, manifest)
    weights = [tree(config.run.dir / "model")["model.safetensors"] for config in (whole, killed)]
    assert weights[0] == weights[1]
    _, info = model_folder.load(whole.run.dir / "model")
    assert {info.dataset[f"mix {folder}"] for folder, _ in others} == {manifest.digests["content"] for _, manifest in others}
    assert info.numbers.model_extra["epochs"] == pytest.approx(2, rel=0.05)
    alone = settings(random_data[0], tmp_path / "whole", optimizer="adamw", lr=0.05, **train)
    with pytest.raises(RequestError, match="mix"):
        record.find(alone.run.dir, record.inputs_of(alone, manifest), rebuild=False)


def test_a_dataset_that_goes_away_meanwhile_changes_nothing(
    random_data: Data, others: list[Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(others[0][0], tmp_path / "other")
    config = mixed(random_data, tmp_path / "run", [(tmp_path / "other", others[0][1])], epochs=2)
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda trainer: (shutil.rmtree(tmp_path / "other", ignore_errors=True), validate(trainer)))
    stage.run(config, random_data[1])
    _, info = model_folder.load(config.run.dir / "model")
    assert info.dataset[f"mix {tmp_path / 'other'}"] == others[0][1].digests["content"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: random_dataset.write(folder, vocab_size=12), "another tokenizer than"),
        (lambda folder: random_dataset.write(folder, length=9), "rows of 9 tokens and"),
        (lambda folder: None, "no dataset here"),
        (lambda folder: random_dataset.write(folder), "in the mixture already"),
    ],
)
def test_datasets_that_do_not_fit(change: Callable[[Path], object], message: str, random_data: Data, tmp_path: Path) -> None:
    change(tmp_path / "other")
    config = mixed(random_data, tmp_path / "run", [(tmp_path / "other", random_data[1])], segments="rows")
    with pytest.raises(RequestError, match=message):
        stage.run(config, random_data[1])
    assert not (tmp_path / "run").exists()


def test_impossible_mixtures(random_data: Data, others: list[Data], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="leave nothing to"):
        configuration.resolve({"train": {"mix": {"a": 0.5, "b": 0.5}}})
    with pytest.raises(RequestError, match=r"train.streams: too small for 3 datasets"):
        stage.run(mixed(random_data, tmp_path / "run", others, streams=2), random_data[1])
    with pytest.raises(RequestError, match="shorter than a window"):
        stage.run(mixed(random_data, tmp_path / "run", others[:1], window=200), random_data[1])

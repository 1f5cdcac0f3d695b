"""The breakdown of an evaluation: compared with sums over sentences scored one by one, on one rank and on two; and as a page."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packlm import dataset, distributed
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from packlm.evaluation.breakdown import confidence_interval
from serve.evaluate import page as report_page
from tests.ranks import run_on_ranks

ALONE = Ranks(0, 1, torch.device("cpu"))


def report_of(config: Config, ranks: Ranks = ALONE) -> dict[str, Any]:
    engine = Engine.load(config.run.dir / "model")
    return measure.measure_dataset(
        engine.model, engine.info, config.dataset.dir, dataset.read_manifest(config.dataset.dir), config.evaluate, ranks
    )


def one_by_one(config: Config) -> list[tuple[int, int, float, int]]:
    """(id, tokens of its sentence, loss, rank) of each target of the validation split, read token by token."""
    engine, manifest = Engine.load(config.run.dir / "model"), dataset.read_manifest(config.dataset.dir)
    sentences = Sentences.open(config.dataset.dir, manifest, "validation")
    targets = []
    for number in range(len(sentences)):
        state, before = engine.model.recurrence.zero_state(1), engine.encoder.eos
        ids = sentences.targets(number).tolist()
        for id in ids:
            with torch.inference_mode():
                log_probs, state = engine.model.step(torch.tensor([before]), state)
            targets.append((id, len(ids), -float(log_probs[0, id]), int((log_probs[0] > log_probs[0, id]).sum())))
            before = id
    return targets


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_parts_are_sums_over_targets(made: Callable[[str], Config], kind: str) -> None:
    config = made(kind)
    report, targets = report_of(config), one_by_one(config)
    manifest, encoder = dataset.read_manifest(config.dataset.dir), Engine.load(config.run.dir / "model").encoder
    training = Sentences.open(config.dataset.dir, manifest, "train")
    seen = np.bincount(np.concatenate([training.targets(number) for number in range(len(training))]), minlength=manifest.vocab_size)
    by_length, by_token = defaultdict(list), defaultdict(list)
    for id, length, loss, rank in targets:
        by_length["1-5" if length < 6 else "6-10" if length < 11 else "11-20" if length < 21 else "21-40"].append((loss, rank))
        count = int(seen[id])
        frequency = "0" if not count else "1-9" if count < 10 else "10-99"
        by_token["<eos>" if id == encoder.eos else "unknown" if id == encoder.unk else frequency].append((loss, rank))
    for name, expected in (("by_sentence_length", by_length), ("by_token", by_token)):
        assert {row["group"] for row in report[name]} == set(expected)
        for row in report[name]:
            losses, ranks = zip(*expected[row["group"]], strict=True)
            assert row["tokens"] == len(losses) and row["loss_per_token"] == pytest.approx(np.mean(losses), rel=1e-5)
            assert row["accuracy_at_1"] == pytest.approx(np.mean(np.array(ranks) == 0))
            assert row["accuracy_at_5"] == pytest.approx(np.mean(np.array(ranks) < 5))
    known = [loss for id, _, loss, _ in targets if id != encoder.unk]
    assert report["perplexity_known"] == pytest.approx(math.exp(np.mean(known)), rel=1e-5)
    assert report["accuracy_at_5"] == pytest.approx(np.mean([rank < 5 for *_, rank in targets]))
    opens = Stream.open(config.dataset.dir, manifest, "validation").opens
    losses = [np.mean(part) for part in np.split([loss for *_, loss, _ in targets], opens[1:])]
    assert report["by_document"]["hardest"][0]["perplexity"] == pytest.approx(math.exp(max(losses)), rel=1e-5)
    easiest = [row["document"] for row in report["by_document"]["easiest"]]
    assert [Path(name).stem for name in easiest] == [str(number) for number in np.argsort(losses)]
    assert sum(report["by_document"]["histogram"]["counts"]) == 5


def report_on_ranks(config: Config, out: Path) -> None:
    with distributed.start("cpu") as ranks:
        report = report_of(config, ranks)
        if ranks.first:
            out.write_text(json.dumps(report))


def test_two_ranks_find_the_same_parts(made: Callable[[str], Config], tmp_path: Path) -> None:
    config = made("word")
    run_on_ranks(2, report_on_ranks, config, tmp_path / "report.json")
    ours, theirs = report_of(config), json.loads((tmp_path / "report.json").read_text())
    for name in ("by_sentence_length", "by_token"):
        for one, two in zip(ours[name], theirs[name], strict=True):
            assert one.pop("group") == two.pop("group") and one == pytest.approx(two, rel=1e-6)
    assert ours["interval"]["perplexity"] == pytest.approx(theirs["interval"]["perplexity"], rel=1e-6)


def test_the_confidence_interval_covers_the_mean_at_its_level() -> None:
    generator, covered = np.random.default_rng(1), 0
    for _ in range(200):
        tokens = generator.integers(20, 200, 80)
        interval = confidence_interval(generator.normal(5.0, 1.0, 80) * tokens, tokens)
        covered += interval is not None and interval[0] < 5.0 < interval[1]
    assert 180 <= covered <= 198  # 95 % of 200, and a little less with 80 documents
    assert confidence_interval(np.array([3.0]), np.array([2])) is None


def test_a_page_is_the_same_bytes_and_shows_every_part(made: Callable[[str], Config], tmp_path: Path) -> None:
    report = report_of(made("word"))
    pages = [tmp_path / name / "validation.md" for name in ("first", "second")]
    for path in pages:
        path.parent.mkdir()
        report_page.write(report, path)
    first, second = ([path.read_bytes(), path.with_suffix(".svg").read_bytes()] for path in pages)
    assert first == second
    page = first[0].decode()
    assert f"{report['perplexity']:.2f} per token" in page and "(validation.svg)" in page
    for row in (*report["by_sentence_length"], *report["by_token"]):
        assert f"| `{row['group']}` | {row['tokens']:,} | {row['loss_per_token']:.4f} |" in page
    for row in report["by_document"]["hardest"]:
        assert row["document"] in page

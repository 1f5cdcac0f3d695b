"""The report: its numbers against counting one by one, its figures against what was handed to matplotlib."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm import config
from packlm.base import files
from packlm.text import tokenizer, tokenizers
from packlm.text.encoder import Encoder
from preprocess import report
from preprocess.report import Lengths, Measures
from tests.small_corpus import tree

SOME = st.lists(st.integers(1, 300), max_size=40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset's folder with a tokenizer of words: `<eos>`, `<unk>`, w0 to w9."""
    model = tokenizers.train(config.Tokenizer(kind="word", vocab_size=50, min_count=1), [" ".join(f"w{number}" for number in range(10))])
    tokenizer.save(model.to_str(), tmp_path)
    return tmp_path


def measures(seed: int, sentences: int) -> Measures:
    generator = np.random.default_rng(seed)
    lengths = generator.geometric(0.05, sentences)
    documents = np.add.reduceat(lengths, np.arange(0, sentences, 7)) if sentences else lengths
    frequencies = np.bincount(generator.integers(0, 11, lengths.sum()), minlength=12)
    return Measures(Lengths.of(lengths), Lengths.of(documents), frequencies)


@given(SOME, SOME)
def test_lengths_add_up(some: list[int], more: list[int]) -> None:
    made = Lengths.of(np.array(some, np.int64)) + Lengths.of(np.array(more, np.int64))
    assert list(zip(made.values, made.counts, strict=True)) == sorted(Counter(some + more).items())
    assert (made.number, made.total, made.longest) == (len(some + more), sum(some + more), max(some + more, default=0))


@given(SOME.filter(bool), st.sampled_from([0.25, 0.5, 0.75, 1.0]) | st.floats(0.001, 1))
def test_quantiles_are_lengths_that_occur(some: list[int], share: float) -> None:
    found = Lengths.of(np.array(some)).quantile(share)
    smaller = [length for length in set(some) if length < found]
    assert found in some
    assert sum(length <= found for length in some) >= share * len(some)
    assert not smaller or sum(length <= max(smaller) for length in some) < share * len(some)


@pytest.mark.parametrize("parts", [1, 2, 4])
@given(longest=st.integers(0, 100_000))
def test_bins_cover_all_lengths_without_gaps(parts: int, longest: int) -> None:
    edges = report.bins(longest, parts)
    assert edges[0] == 1 and edges[-1] > longest and (longest == 0 or edges[-2] <= longest)
    assert all(low < high <= 2 * low for low, high in pairwise(edges))
    for power in range(longest.bit_length()):
        inside = sum(1 << power <= edge < 2 << power for edge in edges)
        assert inside == min(parts, 1 << power) or 2 << power >= edges[-1]


def test_numbers_are_those_counted_one_by_one(folder: Path) -> None:
    sentences, ids = [3, 1, 5, 5, 40], [2] * 30 + [3] * 10 + [0] * 5 + [1] * 2 + [4, 5, 6, 6, 7, 7, 7]
    train = Measures(Lengths.of(np.array(sentences)), Lengths.of(np.array([4, 50])), np.bincount(ids, minlength=12))
    other = Measures(Lengths.of(np.array([4])), Lengths.of(np.array([4])), np.bincount([0, 2, 8, 8], minlength=12))
    files_written = report.write(folder, {"train": train, "test": other})
    found = json.loads(files_written[-1].read_text())
    assert [path.relative_to(folder).as_posix() for path in files_written] == [
        "report/lengths.png", "report/frequency.png", "report/report.json",
    ]  # fmt: skip
    lengths, tokens = found["train"]["sentences"], found["train"]["tokens"]
    assert (lengths["number"], lengths["tokens"], lengths["mean"], lengths["longest"]) == (5, 54, 10.8, 40)
    assert (lengths["quantiles"]["50%"], lengths["quantiles"]["99%"]) == (5, 40)
    assert lengths["histogram"] == [
        {"from": 1, "to": 1, "number": 1}, {"from": 3, "to": 3, "number": 1},
        {"from": 5, "to": 5, "number": 2}, {"from": 40, "to": 47, "number": 1},
    ]  # fmt: skip
    assert found["train"]["documents"]["number"] == 2
    assert (tokens["number"], tokens["types"], tokens["vocabulary"], tokens["occurring_once"]) == (54, 8, 12, 2)
    assert tokens["types_that_cover"] == {"50%": 1, "90%": 5, "95%": 6, "99%": 8}
    assert (tokens["eos"], tokens["unknown"]) == ({"token": "<eos>", "count": 5}, {"token": "<unk>", "count": 2})
    assert [entry["count"] for entry in tokens["most_frequent"]] == [30, 10, 5, 3, 2, 2, 1, 1]
    assert tokens["most_frequent"][0]["token"] == Encoder.load(folder).token(2)
    assert list(tokens["count_at_rank"].values()) == [30, 10, 5, 3, 2, 2, 1, 1]
    assert (tokens["not_in_train"], found["test"]["tokens"]["not_in_train"]) == (0, 2)


def test_figures_show_every_split(folder: Path) -> None:
    splits = {"train": measures(1, 3000), "validation": measures(2, 300), "test": measures(3, 30)}
    figure = report._lengths_figure(splits)
    for axes, what in zip(figure.axes, ("sentences", "documents"), strict=True):
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        for (name, of_split), text in zip(splits.items(), texts, strict=True):
            lengths = getattr(of_split, what)
            assert text == f"{name}: {lengths.number:,} {what}, median {lengths.quantile(0.5):,}, longest {lengths.longest:,} tokens"
            (drawn,) = [patch.get_data() for patch in axes.patches if patch.get_label() == text]
            area = drawn.values * np.diff(np.log2(drawn.edges))
            assert area.sum() == pytest.approx(1)
            inside = (lengths.values >= drawn.edges[3]) & (lengths.values < drawn.edges[4])
            assert area[3] == pytest.approx(lengths.counts[inside].sum() / lengths.number)
        assert axes.get_xlim()[1] >= max(getattr(of_split, what).longest for of_split in splits.values())
    frequencies, encoder = splits["train"].frequencies, Encoder.load(folder)
    (axes,) = report._frequency_figure(frequencies, encoder).axes
    curve, *marks = axes.lines
    assert curve.get_ydata().tolist() == sorted(frequencies[frequencies > 0].tolist(), reverse=True)
    assert [mark.get_ydata().tolist() for mark in marks] == [[frequencies[encoder.eos]], [frequencies[encoder.unk]]]
    for mark in marks:
        assert curve.get_ydata()[curve.get_xdata() == mark.get_xdata()[0]].tolist() == mark.get_ydata().tolist()


@pytest.mark.parametrize(
    "splits",
    [
        {"train": measures(1, 1)},
        {"train": measures(1, 50), "validation": measures(2, 1), "test": Measures.none(12)},
        {"train": Measures.none(12)},
    ],
)
def test_little_text_has_a_report_too(folder: Path, splits: dict[str, Measures]) -> None:
    for path in report.write(folder, splits):
        assert path.stat().st_size > 0
    assert json.loads((folder / "report" / "report.json").read_text()).keys() == splits.keys()


def test_bytes_depend_on_the_measures_alone(folder: Path, tmp_path: Path) -> None:
    """Another process, on another day, whose user has other tastes in figures, writes the same bytes."""
    splits = {"train": measures(1, 300), "validation": measures(2, 30)}
    report.write(folder, splits)
    before = tree(folder / "report")
    program = (
        "from pathlib import Path; from preprocess import report; from tests.preprocess.test_report import measures;"
        f"report.write(Path({str(folder)!r}), {{'train': measures(1, 300), 'validation': measures(2, 30)}})"
    )
    taste = tmp_path / "matplotlibrc"
    taste.write_text("font.size: 20\nsavefig.dpi: 50\naxes.facecolor: black\nfigure.constrained_layout.use: True\n")
    environment = {**os.environ, "MATPLOTLIBRC": str(taste), "SOURCE_DATE_EPOCH": "1000000000", "PYTHONHASHSEED": "7"}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, check=True, timeout=60)
    assert tree(folder / "report") == before
    assert b"Software" not in (folder / "report" / "lengths.png").read_bytes()


def test_matplotlib_is_imported_only_for_a_report() -> None:
    program = "import sys, preprocess.cli; assert not {'matplotlib', 'huggingface_hub'} & set(sys.modules), 'too early'"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[2], check=True, timeout=60)


def test_sums_of_shards_are_the_split(folder: Path) -> None:
    parts = [measures(seed, 20) for seed in range(4)]
    whole: Any = sum(parts, Measures.none(12))
    lengths = np.concatenate([np.repeat(part.sentences.values, part.sentences.counts) for part in parts])
    assert np.array_equal(whole.sentences.values, Lengths.of(lengths).values)
    assert np.array_equal(whole.sentences.counts, Lengths.of(lengths).counts)
    assert whole.frequencies.sum() == whole.sentences.total == whole.documents.total
    assert files.digest(report.numbers({"train": whole}, Encoder.load(folder)))

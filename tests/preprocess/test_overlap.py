"""The overlap of splits: against sets of tuples, in batches of any size, and in a dataset that was built."""

from pathlib import Path

import numpy as np
import pytest

from packlm.dataset.views import Sentences
from preprocess import overlap
from preprocess.advice import advice

TRAIN = "The cat sat on the mat and slept all day. A dog barked. Nobody saw the old man who lived near the river at night.\n\n"
HELD_OUT = "A dog barked. Somebody saw the old man who lived near the river at night. Nothing else was ever the same in this town.\n\n"


def reference(sentences: dict[str, list[tuple[int, ...]]], run: int) -> dict[str, tuple[int, float, float]]:
    """For each held-out split: sentences, share of their tokens, share of runs; from tuples in sets."""
    streams = {name: [id for sentence in part for id in sentence] for name, part in sentences.items()}
    runs = {name: [tuple(ids[start : start + run]) for start in range(len(ids) - run + 1)] for name, ids in streams.items()}
    known, known_runs = set(sentences["train"]), set(runs["train"])
    results = {}
    for name in sentences.keys() - {"train"}:
        repeated = [sentence for sentence in sentences[name] if sentence in known]
        share = sum(map(len, repeated)) / len(streams[name])
        results[name] = len(repeated), share, sum(part in known_runs for part in runs[name]) / max(1, len(runs[name]))
    return results


@pytest.mark.parametrize("seed", range(5))
def test_hashes_are_equal_where_ids_are(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ids, run = generator.integers(0, 3, 400), int(generator.integers(1, 7))
    lengths = np.diff(np.unique(np.concatenate([[0], generator.integers(1, 400, 60), [400]])))
    ends = np.cumsum(lengths)
    for hashes, keys in (
        (overlap.run_hashes(ids, run), [tuple(ids[start : start + run]) for start in range(400 - run + 1)]),
        (overlap.sentence_hashes(ids, lengths), [tuple(ids[end - length : end]) for end, length in zip(ends, lengths, strict=True)]),
    ):
        assert hashes.dtype == np.uint64 and len(hashes) == len(keys)
        assert len({(hash, key) for hash, key in zip(hashes.tolist(), keys, strict=True)}) == len(set(keys)) == len(set(hashes.tolist()))


def test_a_dataset_reports_its_overlap_and_warns(made, settings, tmp_path: Path) -> None:
    texts = {"train": TRAIN * 3, "validation": HELD_OUT, "test": "Wholly other words stand here, and nowhere else at all.\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    changes = {f"corpus__{name}": str(tmp_path / f"{name}.txt") for name in texts}
    folder, manifest = made(**changes)
    measured = overlap.load(folder)
    views = {name: Sentences.open(folder, manifest, name) for name in manifest.splits}
    sentences = {name: [tuple(view.targets(index).tolist()) for index in range(len(view))] for name, view in views.items()}
    expected = reference(sentences, measured["test"].run_tokens)
    assert measured.keys() == expected.keys() == {"validation", "test"}
    for name, numbers in expected.items():
        actual = measured[name]
        assert (actual.sentences, actual.sentence_share, actual.run_share) == pytest.approx(numbers)
    assert measured["validation"].sentences == 1 and measured["validation"].run_share > 0.1
    (warning,) = [line for line in advice(settings(**changes), manifest) if "sentences of the" in line]
    assert "1 of the 3 sentences of the validation split" in warning and "corpus.duplicates" in warning


def test_a_corpus_without_held_out_text(made) -> None:
    folder, _ = made()
    assert overlap.load(folder) == {}

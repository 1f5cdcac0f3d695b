"""Both views hold every id once, in the same order, and sentences with their gaps are the documents."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from packlm import config
from packlm.base.errors import RequestError
from packlm.corpus import documents, streams
from packlm.dataset import SPLITS
from packlm.text.encoder import Encoder
from preprocess import report
from preprocess.build.stage import build
from tests.small_corpus import TEXTS, rows, tree

CASES = {
    "stream": {},
    "document": {"dataset__rows": "document"},
    "lines": {"corpus__document": "line", "corpus__sentences": "none", "dataset__shards": 4},
    "lines by document": {"corpus__document": "line", "dataset__rows": "document", "dataset__length": 3},
    "one shard": {"dataset__shards": 1, "dataset__length": 1000},
    "rows of one": {"dataset__length": 1, "corpus__sentences": "line"},
    "more shards than documents": {"dataset__shards": 50},
    "characters": {"tokenizer__kind": "character", "tokenizer__vocab_size": 20},
    "words": {"tokenizer__kind": "word", "corpus__on_bad_text": "replace"},
    "fractions": {"corpus__validation_fraction": 0.3, "corpus__test_fraction": 0.3, "corpus__document": "line"},
}


@pytest.mark.parametrize("case", CASES)
def test_both_views_hold_the_same_ids(made, case, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 40)  # several blocks a shard
    agree(*made(**CASES[case]), by_document=CASES[case].get("dataset__rows") == "document")


ALPHABET = st.characters(codec="utf-8", exclude_characters="\x00", categories=["L", "N", "P", "Z", "So", "Cc"])
TEXTS_OF_CORPORA = st.lists(st.text(ALPHABET, min_size=1, max_size=60), min_size=1, max_size=8)


@settings_of_hypothesis(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    texts=TEXTS_OF_CORPORA, rows=st.sampled_from(["stream", "document"]), length=st.integers(1, 9), shards=st.integers(1, 5),
    sentences=st.sampled_from(["line", "sentencex", "none"]), max_tokens=st.sampled_from([None, 8, 12]), held_out=st.sampled_from([0, 0.3]),
    document=st.sampled_from(["file", "line", "paragraph"]), kind=st.sampled_from(["bpe", "character", "word"]),
)  # fmt: skip
def test_random_corpora(tmp_path_factory, texts, rows, length, shards, sentences, max_tokens, held_out, document, kind):
    root = tmp_path_factory.mktemp("random")
    (root / "c").mkdir()
    for number, text in enumerate([*texts, "a word"]):
        (root / "c" / f"{number}.txt").write_text(text, encoding="utf-8", newline="")
    corpus = {"train": str(root / "c"), "sentences": sentences, "max_tokens": max_tokens, "document": document}
    chosen = config.resolve(
        {
            "corpus": corpus | {"validation_fraction": held_out, "test_fraction": held_out, "on_control": "keep", "on_bad_text": "replace"},
            "tokenizer": {"kind": kind, "vocab_size": 270},
            "dataset": {"dir": root / "data", "rows": rows, "length": length, "shards": shards, "workers": 1},
        }
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "write", lambda folder, measures: [])  # takes longer than all the rest
            folder, manifest = chosen.dataset.dir, build(chosen).manifest
    except RequestError as error:
        assert "no text to train on" in str(error)
        return
    agree(folder, manifest, rows == "document")
    back = read_back(folder, manifest)
    found = {name: text for block in sources_of(root, chosen.corpus) for name, text in block}
    assert back.keys() == found.keys()
    if manifest.lossless:
        assert back == found


def sources_of(root, rules):
    """The cleaned documents of the corpus, as serving reads them."""
    return documents.read_locations([str(root / "c")], rules, False, Counter())


def agree(folder, manifest, by_document):
    """Asserts that every id stands once in each view, in the same order, and that the numbers of manifest and columns are true."""
    encoder, length = Encoder.load(folder), manifest.length
    for name, split in manifest.splits.items():
        fixed, sentences = rows(folder, manifest, "fixed", name), rows(folder, manifest, "sentences", name)
        assert len(fixed) == len(sentences) and all(fixed) and all(sentences)
        listed = zip(split.files["fixed"].values(), split.files["sentences"].values(), strict=True)
        for ours, theirs, files in zip(fixed, sentences, listed, strict=True):
            ids = [id for row in theirs for id in row["ids"]]
            targets = [id for row in ours for id in row["ids"][1 : row["num_targets"] + 1]]
            assert targets == ids and files[0].tokens == files[1].tokens == len(ids)
            assert (files[0].rows, files[1].rows) == (len(ours), len(theirs))
            opens = np.cumsum([0, *(len(row["ids"]) for row in theirs)])[:-1][[row["position"] == 0 for row in theirs]]
            starts = np.cumsum([0, *(row["num_targets"] for row in ours)])
            found = [start + place for start, row in zip(starts, ours, strict=False) for place in row["begins"]]
            assert found == opens.tolist()
            before = [encoder.eos, *targets]
            assert [row["ids"][0] for row in ours] == [before[start] for start in starts[:-1]]
            short = [index for index, row in enumerate(ours) if row["num_targets"] < length]
            ends = {int(np.searchsorted(starts, place)) - 1 for place in [*opens[1:], len(ids)]} if by_document else {len(ours) - 1}
            assert set(short) <= ends and all(len(row["ids"]) == length + 1 for row in ours)
            assert not by_document or all(row["begins"] in ([], [0]) for row in ours)
            assert all(row["ids"].count(encoder.eos) == 1 and row["ids"][-1] == encoder.eos for row in theirs)
        flat = [row for shard in sentences for row in shard]
        assert split.documents == sum(row["position"] == 0 for row in flat) and split.sentences == len(flat)
        assert split.words == sum(row["words"] for row in flat)
        assert split.longest_sentence == max(len(row["ids"]) for row in flat)
        assert split.unknown == sum(row["ids"].count(1) for row in flat if encoder.unk == 1)
        assert split.bytes == sum(row["bytes"] + len((row["lead"] + row["gap"]).encode()) for row in flat)


@pytest.mark.parametrize("rule", ["line", "sentencex", "none"])
def test_documents_come_back_to_the_letter(made, rule):
    folder, manifest = made(corpus__sentences=rule)
    back = read_back(folder, manifest)
    assert manifest.lossless
    assert back == {f"articles/{name}": text for name, text in TEXTS.items() if text.strip()}
    assert list(back) == sorted(back)
    assert manifest.counts == {"empty documents skipped": 1}


def read_back(folder, manifest):
    """Name -> text of every document, put together from the sentences view."""
    encoder, back = Encoder.load(folder), {}
    for row in (row for split in manifest.splits for shard in rows(folder, manifest, "sentences", split) for row in shard):
        back[row["document"]] = back.get(row["document"], "") + row["lead"] + encoder.decode(row["ids"]) + row["gap"]
    return back


def test_the_size_of_blocks_changes_no_byte(made, monkeypatch):
    folder, _ = made(corpus__document="line")
    whole = tree(folder)
    monkeypatch.setattr(streams, "BLOCK", 1)
    assert tree(made(corpus__document="line")[0]) == whole


def test_fractions_move_no_other_document(made, corpus):
    rules = {"corpus__document": "line", "corpus__validation_fraction": 0.25, "corpus__test_fraction": 0.25, "dataset__shards": 2}

    def places():
        folder, manifest = made(**rules)
        found = {split: rows(folder, manifest, "sentences", split) for split in manifest.splits}
        return {row["document"]: split for split, files in found.items() for shard in files for row in shard}

    (corpus / "m.txt").write_text("".join(f"line {number}\n" for number in range(200)))
    before = places()
    assert set(before.values()) == set(SPLITS)
    (corpus / "f.txt").write_text("".join(f"more {number}\n" for number in range(50)))
    after = places()
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 50
    share = sum(split == "test" for name, split in before.items() if "m.txt" in name) / 200
    assert 0.15 < share < 0.35


@pytest.mark.parametrize("name", ["wsj_articles", "shakespeare"])
def test_whole_corpora_come_back_to_the_letter(made, name, corpora):
    place = corpora / name
    rules = {"corpus__train": str(place), "corpus__on_bad_text": "replace", "corpus__max_tokens": 40, "tokenizer__vocab_size": 400}
    folder, manifest = made(**rules)
    texts = {f"{name}/{path.relative_to(place).as_posix()}": path.read_bytes().decode(errors="replace") for path in place.rglob("*.txt")}
    assert read_back(folder, manifest) == {name: text for name, text in texts.items() if text.strip()}
    assert manifest.splits["train"].longest_sentence <= 40
    assert manifest.counts["sentences of more than 40 tokens split"] == manifest.splits["train"].overlong > 0

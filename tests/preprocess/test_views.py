"""Both views hold every id once, in the same order, and sentences with their gaps are the documents."""

import numpy as np
import pytest

from pipeline.dataset import SPLITS
from preprocess import shards
from preprocess.encoding import Encoder
from tests.preprocess.conftest import TEXTS, rows, tree

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
    monkeypatch.setattr(shards, "_BLOCK_CHARACTERS", 40)  # several blocks a shard
    monkeypatch.setattr(shards, "_BATCH_ROWS", 2)
    folder, manifest = made(**CASES[case])
    encoder, length = Encoder.load(folder), manifest.length
    by_document = CASES[case].get("dataset__rows") == "document"
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
    encoder, back = Encoder.load(folder), {}
    for row in (row for shard in rows(folder, manifest, "sentences", "train") for row in shard):
        back[row["document"]] = back.get(row["document"], "") + row["lead"] + encoder.decode(row["ids"]) + row["gap"]
    assert manifest.lossless
    assert back == {f"articles/{name}": text for name, text in TEXTS.items() if text.strip()}
    assert list(back) == sorted(back)
    assert manifest.counts == {"empty documents skipped": 1}


def test_no_trace_of_the_size_of_blocks(made, monkeypatch):
    folder, _ = made(corpus__document="line")
    whole = tree(folder)
    monkeypatch.setattr(shards, "_BLOCK_CHARACTERS", 1)
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


def test_lines_are_found_again_far_into_a_file(made, corpus, monkeypatch):
    monkeypatch.setattr("preprocess.plan._MARK_EVERY", 8)
    lines = ("\n" if number % 3 == 0 else f"Zeile é {number}\n" for number in range(100))
    (corpus / "b.txt").write_bytes(b"\xef\xbb\xbf" + "".join(lines).encode())
    rules = {"corpus__document": "line", "corpus__sentences": "none", "corpus__train": str(corpus / "b.txt"), "dataset__shards": 7}
    folder, manifest = made(**rules, corpus__test_fraction=0.4)
    found = {
        row["document"]: Encoder.load(folder).decode(row["ids"])
        for split in manifest.splits
        for shard in rows(folder, manifest, "sentences", split)
        for row in shard
    }
    assert found == {f"b.txt:{number + 1}": f"Zeile é {number}" for number in range(100) if number % 3}
    assert [len(shard) for shard in rows(folder, manifest, "sentences", "test")][:-1]  # several shards, none empty

"""Damaged files are named and rebuilt from the corpus; nothing else is touched."""

import pytest

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError
from preprocess.build.stage import repair
from preprocess.executors.runner import TaskRunner
from tests.small_corpus import tree

FIXED, SENTENCES = "fixed/train-00001-of-00003.parquet", "sentences/train-00002-of-00003.parquet"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, delete])
@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_only_what_is_damaged_is_rebuilt(made, settings, monkeypatch, damage, kind):
    rules = {"tokenizer__kind": kind, "corpus__on_bad_text": "replace"}
    folder, manifest = made(**rules)
    whole = tree(folder)
    names = [FIXED, SENTENCES, "tokenizer.json", "tokenizer_config.json", "README.md", "report/overlap.json"]
    for name in names:
        damage(folder / name)
    found = dataset.damaged(folder, manifest)
    assert sorted(found) == sorted(names) and all(whole[name] in found[name] for name in names)
    shards = [name for name in whole if name.endswith(".parquet") and name not in names]
    others = {name: (folder / name).stat().st_mtime_ns for name in shards}
    rebuilt = []

    def note(runner, function, tasks, *others, real=TaskRunner.run):
        rebuilt.extend(task.name for task in tasks if task.name.startswith("train"))
        real(runner, function, tasks, *others)

    monkeypatch.setattr(TaskRunner, "run", note)
    assert sorted(repair(settings(**rules), folder)) == sorted(names)
    assert tree(folder) == whole and rebuilt == ["train-00001-of-00003", "train-00002-of-00003"]
    assert {name: (folder / name).stat().st_mtime_ns for name in others} == others
    assert repair(settings(**rules), folder) == []


def test_the_command(made, corpus, command_line):
    folder, _ = made()
    whole = tree(folder)
    flip(folder / FIXED)
    given = {
        "run.name": "small",
        "corpus.format": "auto",
        "corpus.train": corpus,
        "corpus.validation_fraction": 0,
        "corpus.test_fraction": 0,
    }
    given |= {"tokenizer.vocab_size": 280, "dataset.length": 7, "dataset.shards": 3, "dataset.workers": 1}
    words = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    status, out, err = command_line("preprocess", "verify", folder, "--repair", *words)
    assert status == 0 and tree(folder) == whole
    assert f"{folder / FIXED}: rebuilt" in err and "every file matches its digest" in out


def test_two_shards_that_changed_places(made, settings):
    folder, manifest = made()
    whole = tree(folder)
    one, two = folder / FIXED, folder / FIXED.replace("00001", "00000", 1)
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    assert len(dataset.damaged(folder, manifest)) == 2
    repair(settings(), folder)
    assert tree(folder) == whole


def test_a_corpus_that_changed_cannot_repair(made, settings, corpus):
    folder, _ = made()
    flip(folder / FIXED)
    (corpus / "a.txt").write_text("Something else.")
    with pytest.raises(RequestError, match=r"changed: train: articles/a\.txt"):
        repair(settings(), folder)
    with pytest.raises(RequestError, match=r"dataset\.length: 7 -> 8"):
        repair(settings(dataset__length=8), folder)


def test_libraries_that_make_other_bytes_are_noticed(made, settings, monkeypatch):
    folder, _ = made()
    flip(folder / FIXED)
    before = tree(folder)
    monkeypatch.setitem(dataset.ROW_GROUP, "fixed", 2)
    with pytest.raises(PacklmError, match=r"train-00001-of-00003\.parquet: rebuilt, but different"):
        repair(settings(), folder)
    assert tree(folder) == before


def test_a_damaged_manifest_is_named(made, settings):
    folder, manifest = made()
    text = (folder / "manifest.json").read_text()
    tokens = manifest.splits["train"].files["fixed"][FIXED].sha256
    (folder / "manifest.json").write_text(text.replace(tokens, tokens[::-1]))
    with pytest.raises(PacklmError, match=r"manifest\.json: edited or damaged: the digest of its content is"):
        repair(settings(), folder)

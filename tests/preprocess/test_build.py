"""The stage gives the same bytes however it is run, does nothing twice, and names what changed."""

import os

import datasets
import pytest

from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from preprocess.build import scan, shards
from preprocess.build.builder import Builder
from preprocess.build.stage import build
from preprocess.executors.runner import TaskRunner
from tests.small_corpus import TEXTS, tree


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_workers_change_no_byte(made, kind, monkeypatch):
    monkeypatch.setattr(scan, "PART_BYTES", 40)  # an extraction task for each document
    rules = {"tokenizer__kind": kind, "corpus__on_bad_text": "replace"}
    folder, _ = made(**rules)
    whole = tree(folder)
    for workers in (2, 7):
        assert tree(made(dataset__workers=workers, **rules)[0]) == whole


def test_an_interrupted_run_resumes_where_it_was(settings, made, monkeypatch):
    folder, _ = made()
    whole = tree(folder)
    calls = []

    def fail_third(task, real=shards.make):
        calls.append(task.name)
        if len(calls) == 3:
            (task.dataset_folder / "fixed" / f".{task.name}.parquet.1.tmp").write_bytes(b"half")
            raise PacklmError("injected")
        real(task)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "make", fail_third)
        with pytest.raises(PacklmError, match="injected"):
            build(settings(), rebuild=True)
    assert tree(folder) == whole  # what was there stays until the new one is whole
    done = sorted(folder.parent.glob(".small.building/*/shards/train-*.json"))
    assert len(done) == 2
    name = done[0].name.removesuffix(".json")
    shard = next(folder.parent.glob(f".small.building/*/dataset/fixed/{name}.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])  # a finished shard that the crash has damaged
    model = next(folder.parent.glob(".small.building/*/dataset/tokenizer.json"))
    model.write_text(model.read_text()[:-9])
    redone = []

    def note(runner, function, tasks, *others, real=TaskRunner.run):
        redone.extend(task.name for task in tasks)
        real(runner, function, tasks, *others)

    monkeypatch.setattr(TaskRunner, "run", note)
    assert tree(made()[0]) == whole
    assert sorted(redone) == sorted({"train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003"} - {done[1].stem})
    assert [path.name for path in folder.parent.iterdir() if path.name != ".small.lock"] == ["small"]


@pytest.mark.parametrize("step", ["changed", "extract", "learn", "make_shards"])
@pytest.mark.parametrize("change", ["written", "secretly", "split", "name"])
def test_what_was_made_of_other_text_is_not_reused(settings, corpus, tmp_path, monkeypatch, step, change):
    """Interrupted during extraction or after a step; then the sources are replaced by others."""
    rules = {"corpus__document": "line", "corpus__on_bad_text": "replace", "tokenizer__kind": "word"}
    if change == "split":
        rules |= {"corpus__train": str(corpus / "sub"), "corpus__validation": str(corpus / "a.txt")}
    elif change == "name":
        for path in corpus.glob("*.txt"):
            path.unlink()

    class Interrupted(Exception):
        pass

    where = scan.Scan if step == "changed" else Builder
    real = getattr(where, step)

    def stopped(*arguments):
        real(*arguments)
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(where, step, stopped)
        build(settings(**rules))
    if change == "split":
        rules["corpus__test"] = rules.pop("corpus__validation")
    elif change == "name":
        rules["corpus__train"] = str(corpus / "sub")
    elif change in ("written", "secretly"):
        for path in (corpus / "a.txt", corpus / "sub" / "d.txt"):
            before = path.stat()
            path.write_text(path.read_text().swapcase())
            if change == "secretly":
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    undisturbed = tree(_built(settings(dataset__dir=tmp_path / "undisturbed" / "small", **rules)))
    assert tree(_built(settings(**rules))) == undisturbed


def test_what_several_processes_have_extracted_is_not_extracted_again(settings, monkeypatch):
    monkeypatch.setattr(scan, "PART_BYTES", 40)
    folder = settings().dataset.dir
    found = []
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(scan.Scan, "changed", lambda _: 1 / 0)
            build(settings(corpus__on_bad_text="replace", dataset__workers=2))
        found.append({path.name: path.stat().st_mtime_ns for path in folder.parent.glob(".small.building/*/extracted/*.arrow")})
    assert len(found[0]) > 2 and found[1] == found[0]


class _CutOff(BaseException):
    """Stands for a power cut: nothing that follows it runs."""


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_power_cut_at_every_write_and_rename(settings, tmp_path, monkeypatch, kind):
    """Each run is cut off one operation later than the last one, and the next resumes from what is there."""
    rules = {"tokenizer__kind": kind, "corpus__on_bad_text": "replace", "corpus__duplicates": "skip"}
    whole = tree(_built(settings(dataset__dir=tmp_path / "undisturbed" / "small", **rules)))
    names = ("replace", "rename", "fsync")
    real = {name: getattr(os, name) for name in names}
    left = 0

    def counted(name):
        def operation(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise _CutOff
            return real[name](*arguments)

        return operation

    cuts = 0
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(os, name, counted(name))
        while True:
            left = cuts
            try:
                _built(settings(**rules))
                break
            except _CutOff:
                cuts += 1
                assert not settings().dataset.dir.exists() or tree(settings().dataset.dir) == whole
                assert cuts < 500
    assert cuts > 10
    assert tree(settings().dataset.dir) == whole


def _built(chosen):
    build(chosen)
    return chosen.dataset.dir


def test_a_rerun_does_nothing_and_a_change_is_named(settings, corpus, monkeypatch):
    assert build(settings()).seconds is not None
    folder = settings().dataset.dir
    whole = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "build", None)
        assert build(settings(dataset__workers=2)).seconds is None
    with pytest.raises(RequestError, match=r"dataset\.length: 7 -> 9(.|\n)*--rebuild"):
        build(settings(dataset__length=9))
    (corpus / "a.txt").write_text("Other text.")
    (corpus / "new.txt").write_text("New text.")
    (corpus / "b.txt").unlink()
    with pytest.raises(RequestError) as caught:
        build(settings())
    listed = ["added: train: articles/new.txt", "changed: train: articles/a.txt", "removed: train: articles/b.txt"]
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == listed
    assert tree(folder) == whole


def test_the_order_of_the_sources_counts(settings, corpus):
    places = (str(corpus / "a.txt"), str(corpus / "b.txt"))
    build(settings(corpus__train=places))
    with pytest.raises(RequestError, match="the sources come in another order"):
        build(settings(corpus__train=places[::-1]))


def test_the_paths_of_this_machine_are_not_in_it(made, tmp_path, corpus):
    folder, _ = made()
    whole = tree(folder)
    corpus.rename(tmp_path / "elsewhere")
    (tmp_path / "deep").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "deep" / "articles")
    assert tree(made(corpus__train=str(tmp_path / "deep" / "articles"))[0]) == whole


def test_load_dataset_shows_the_new_data(made, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def tokens(view):
        return datasets.load_dataset(str(folder), view, split="train", cache_dir=str(tmp_path / "cache"))

    folder, manifest = made()
    assert len(tokens("sentences")) == manifest.splits["train"].sentences
    assert sum(tokens("fixed")["num_targets"]) == manifest.splits["train"].tokens
    (corpus / "zz.txt").write_text("An article more.")
    folder, manifest = made()
    assert tokens("sentences")[-1]["document"] == "articles/zz.txt"
    assert sum(tokens("fixed")["num_targets"]) == manifest.splits["train"].tokens


def test_nothing_to_train_on(settings, tmp_path):
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "x.txt").write_text("\n")
    with pytest.raises(RequestError, match=r"corpus\.train: no text"):
        build(settings(corpus__train=str(tmp_path / "blank")))
    with pytest.raises(RequestError, match=r"corpus\.train is not set"):
        build(settings(corpus__train=()))


def test_one_file_in_two_splits(settings, corpus):
    with pytest.raises(RequestError, match="given twice"):
        build(settings(corpus__validation=str(corpus / "a.txt")))


def test_a_folder_that_is_not_a_dataset_is_left_untouched(settings, tmp_path):
    (tmp_path / "mine").mkdir()
    build(settings(dataset__dir=tmp_path / "mine"))  # an empty one may be filled
    (tmp_path / "mine" / "manifest.json").unlink()
    for rebuild in (False, True):
        with pytest.raises(RequestError, match="mine: not a dataset; left untouched"):
            build(settings(dataset__dir=tmp_path / "mine"), rebuild)
    assert (tmp_path / "mine" / "tokenizer.json").exists()


def test_splits_given_as_files(made, corpus, tmp_path):
    (tmp_path / "v.txt").write_text("The cat sat.")
    folder, manifest = made(corpus__validation=str(tmp_path / "v.txt"))
    assert list(manifest.splits) == ["train", "validation"] and manifest.splits["validation"].documents == 1
    assert dataset.read_sources(folder, manifest)["validation: v.txt"] == files.sha256(tmp_path / "v.txt")


@pytest.mark.parametrize("kind", ["word", "character", "bpe"])
def test_the_tokenizer_learns_from_the_training_split_alone(made, tmp_path, kind):
    rules = {"tokenizer__kind": kind, "tokenizer__vocab_size": 400, "corpus__on_bad_text": "replace"}
    alone = tree(made(**rules)[0])["tokenizer.json"]
    (tmp_path / "v.txt").write_text("zzzzz zzzzz zzzzz")
    folder, manifest = made(corpus__validation=str(tmp_path / "v.txt"), **rules)
    assert tree(folder)["tokenizer.json"] == alone
    assert manifest.splits["validation"].unknown == {"word": 3, "character": 15, "bpe": 0}[kind]


@pytest.mark.parametrize("text", ["Somebody else writes here.", TEXTS["a.txt"].swapcase(), None])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_written_to_or_taken_away_while_it_is_read(settings, corpus, monkeypatch, text, when):
    def meddle(runner, function, tasks, *others, real=TaskRunner.run):
        if when == "after":
            real(runner, function, tasks, *others)
        (corpus / "a.txt").write_text(text) if text else (corpus / "a.txt").unlink(missing_ok=True)
        if when == "before":
            real(runner, function, tasks, *others)

    monkeypatch.setattr(TaskRunner, "run", meddle)
    with pytest.raises(PacklmError, match=r"a\.txt: (.*changed while|cannot be read: No such file)"):
        build(settings())
    assert not settings().dataset.dir.exists()


def test_a_second_run_names_the_first(settings):
    folder = settings().dataset.dir
    with files.lock(folder.with_name(".small.lock")), pytest.raises(PacklmError, match=r"small: in use by process \d+"):
        build(settings())


def test_a_pretrained_tokenizer(made, settings, tmp_path):
    folder, manifest = made()
    ready = tmp_path / "ready.json"
    ready.write_bytes((folder / "tokenizer.json").read_bytes())
    _, again = made(tokenizer__kind="file", tokenizer__file=ready)
    assert (again.digests["tokenizer"], again.digests["ids"]) == (manifest.digests["tokenizer"], manifest.digests["ids"])


def test_the_command(corpus, tmp_path, command_line):
    folder = tmp_path / "made"
    arguments = ["--corpus.format", "text", "--corpus.train", corpus, "--corpus.validation_fraction", 0, "--corpus.test_fraction", 0]
    arguments += ["--tokenizer.vocab_size", 280, "--dataset.dir", folder, "--dataset.workers", 1, "--tracking.uri", ""]
    status, out, err = command_line("preprocess", *arguments)
    assert (status, out) == (0, "") and "empty documents skipped: 1" in err and "made in" in err
    assert "up to date" in command_line("preprocess", *arguments)[2]
    assert "every file matches its digest" in command_line("preprocess", "verify", folder)[1]
    assert "articles/a.txt" in command_line("preprocess", "inspect", folder)[1]
    status, _, err = command_line("preprocess", "--rebiuld")
    assert status == 2 and "did you mean --rebuild" in err
    path = next((folder / "fixed").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, _, err = command_line("preprocess", "verify", folder)
    assert status == 1 and f"{path.name}: expected sha256" in err


def test_penn_treebank(made, corpora):
    given = {"corpus__train": str(corpora / "ptb" / "ptb.train.txt"), "corpus__validation": str(corpora / "ptb" / "ptb.valid.txt")}
    rules = {"corpus__document": "line", "corpus__sentences": "none", "dataset__workers": 1, "dataset__length": 64}
    _, manifest = made(**given, **rules, tokenizer__kind="word", tokenizer__vocab_size=10_000, tokenizer__min_count=1)
    assert {name: split.tokens for name, split in manifest.splits.items()} == {"train": 929_589, "validation": 73_760}
    assert manifest.vocab_size == 10_000 and manifest.counts == {}
    assert dataset.id_type(manifest.vocab_size).name == "uint16"

"""Text that stands in its source as it is wanted is not copied, and reads like text that was; a source that changes is noticed."""

import gzip
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from packlm.corpus import streams
from packlm.corpus.sources import Source
from preprocess.build import extracted, plan, shards
from preprocess.build.stage import build
from tests.preprocess.test_plan import planned
from tests.small_corpus import tree

LINE = st.sampled_from(["one", "zwei Bären", " ", "", "= head =", "with\x00control", "\udcff bad", "\ufeff", "ends \r"])
RULES = st.fixed_dictionaries(
    {
        "document": st.sampled_from(["line", "paragraph", "pattern", "file"]),
        "sentences": st.sampled_from(["line", "sentencex", "none"]),
        "line_ends": st.sampled_from(["keep", "lf"]),
        "drop_lines": st.sampled_from([[], ["one"]]),
        "duplicates": st.sampled_from(["keep", "skip"]),
        "validation_fraction": st.sampled_from([0.0, 0.3]),
    }
)


def copied(folder):
    """How many documents of the collected files have their text in them."""
    batches = [batch for path in folder.glob("*.arrow") for batch in extracted.batches(path)]
    return sum(len(batch) - batch.column("text").null_count for batch in batches)


def blocks(tasks):
    """Of each shard, all blocks: documents, and where their pieces start."""
    return [[(list(texts), pieces if pieces is None else pieces.tolist()) for texts, pieces in plan.read(task)] for task in tasks]


def _pattern(document):
    return {"document_pattern": "= .* ="} if document == "pattern" else {}


@example(lines=["", "one", " ", "zwei Bären"], rules={"document": "line", "validation_fraction": 0.3}, block=60, task_bytes=1 << 25)
@given(lines=st.lists(LINE, min_size=1), rules=RULES, block=st.sampled_from([3, 30, 60]), task_bytes=st.sampled_from([10, 1 << 25]))
def test_text_that_stands_in_its_source_reads_like_text_that_was_copied(tmp_path_factory, lines, rules, block, task_bytes):
    data = ("first\n" + "\n".join(lines)).encode(errors="surrogateescape")
    rules = _pattern(rules["document"]) | rules | {"on_control": "remove", "on_bad_text": "replace", "split_seed": 3}
    folder = tmp_path_factory.mktemp("text")
    made = []
    for name in ("standing", "copied"):
        place = folder / name
        place.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            if name == "copied":
                patch.setattr(Source, "plain", False)
            (place / "corpus").write_bytes(data)
            tasks, _, counts = planned(place, 3, task_bytes, block, **rules)
        made.append((blocks(tasks), counts))
    assert made[0] == made[1]
    assert copied(folder / "copied" / "texts")


@pytest.mark.parametrize("document", ["line", "paragraph", "pattern", "file"])
def test_what_is_not_changed_is_not_copied(tmp_path, document):
    text = "= one =\n\nEin Bär.\n\n\n= two =\n\nNoch einer.\n"
    (tmp_path / "corpus").write_text(text)
    rules = {"block": 10, "document": document, **_pattern(document)}
    planned(tmp_path, **rules)
    assert copied(tmp_path / "texts") == 0
    for name, data in (("zipped.gz", gzip.compress(text.encode())), ("returns", text.replace("\n", "\r\n").encode())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "corpus").mkdir()
        (tmp_path / name / "corpus" / name).write_bytes(data)
        planned(tmp_path / name, line_ends="lf", **rules)
        assert copied(tmp_path / name / "texts") > 0


@pytest.mark.parametrize("change", ["longer", "shorter", "as long", "gone"])
def test_a_source_that_changes_before_the_shards_are_made(tmp_path, change):
    path = tmp_path / "corpus"
    path.write_text("one\ntwo\n")
    tasks, _, _ = planned(tmp_path, document="line")
    if change == "gone":
        path.unlink()
    else:
        path.write_text({"longer": "one\ntwo\nthree\n", "shorter": "one\n", "as long": "one\nTWO\n"}[change])
        os.utime(path, ns=(1, 1))
    with pytest.raises(PacklmError, match=r"corpus: (changed while it was being read; run the same command again|cannot be read: No such)"):
        blocks(tasks)


@pytest.mark.parametrize("change", ["touched", "moved"])
def test_the_same_text_elsewhere_or_written_again_goes_on(settings, made, corpus, tmp_path, monkeypatch, change):
    for name in ("e.txt", "a.txt"):  # <eos> and control characters are changed, and so copied
        (corpus / name).unlink()
    monkeypatch.setattr(streams, "BLOCK", 10)  # so that files do not share a block
    rules = {"corpus__document": "line"}
    whole = tree(made(dataset__dir=tmp_path / "undisturbed" / "small", **rules)[0])

    def fail(job):
        raise PacklmError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "make", fail)
        with pytest.raises(PacklmError, match="injected"):
            build(settings(**rules))
    assert not copied(next(tmp_path.glob("data/.small.building/*/texts")))
    if change == "touched":
        for path in corpus.iterdir():
            os.utime(path, ns=(1, 1))
    else:
        (tmp_path / "elsewhere").mkdir()
        corpus.rename(tmp_path / "elsewhere" / corpus.name)
        rules["corpus__train"] = str(tmp_path / "elsewhere" / corpus.name)
    assert tree(made(**rules)[0]) == whole

"""Extracted files give back documents and sentence pieces, whatever blocks and parts they were cut into; changed sources are noticed."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packlm.base.errors import PacklmError
from preprocess.build import shards
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


def contents(plans):
    """(split, name, text, starts of its pieces) of all documents."""
    documents = []
    for plan in plans:
        for texts, pieces in plan.read():
            for index, (name, text) in enumerate(texts):
                start, end = texts.starts[index], texts.ends[index]
                starts = None if pieces is None else (pieces[(pieces >= start) & (pieces < end)] - start).tolist()
                documents.append((plan.split, name, text, starts))
    return documents


@example(lines=["", "one", " ", "zwei Bären"], rules={"document": "line", "validation_fraction": 0.3}, block=60, part_bytes=1 << 25)
@given(lines=st.lists(LINE, min_size=1), rules=RULES, block=st.sampled_from([3, 30, 60]), part_bytes=st.sampled_from([10, 1 << 25]))
def test_blocks_and_parts_change_no_document(tmp_path_factory, lines, rules, block, part_bytes):
    data = ("first\n" + "\n".join(lines)).encode(errors="surrogateescape")
    pattern = {"document_pattern": "= .* ="} if rules["document"] == "pattern" else {}
    rules = pattern | rules | {"on_control": "remove", "on_bad_text": "replace", "split_seed": 3}
    results = []
    for sizes in ((part_bytes, block), (1 << 25, 1 << 22)):
        folder = tmp_path_factory.mktemp("text")
        (folder / "corpus").write_bytes(data)
        plans, _, counts = planned(folder, 3, *sizes, **rules)
        results.append((contents(plans), counts))
    assert results[0] == results[1]


@pytest.mark.parametrize("change", ["touched", "moved"])
def test_an_interrupted_build_resumes_with_the_same_text_elsewhere_or_written_again(settings, made, corpus, tmp_path, monkeypatch, change):
    rules = {"corpus__document": "line"}
    whole = tree(made(dataset__dir=tmp_path / "undisturbed" / "small", **rules)[0])

    def fail(task):
        raise PacklmError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "make", fail)
        with pytest.raises(PacklmError, match="injected"):
            build(settings(**rules))
    if change == "touched":
        for path in corpus.iterdir():
            os.utime(path, ns=(1, 1))
    else:
        (tmp_path / "elsewhere").mkdir()
        corpus.rename(tmp_path / "elsewhere" / corpus.name)
        rules["corpus__train"] = str(tmp_path / "elsewhere" / corpus.name)
    assert tree(made(**rules)[0]) == whole

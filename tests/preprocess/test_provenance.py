"""Every setting that can change a dataset's content is part of its provenance; a changed one is named."""

import pytest

from packlm import config
from packlm.config import Config, Corpus, Dataset, Tokenizer
from packlm.text import tokenizers
from packlm.text.tokenizers import pretrained
from preprocess.build.provenance import NOT_CONTENT, Provenance, changes, content_settings

# Values that differ from the defaults, where "another one" cannot be told from the type; settings that go together are given together.
OTHERS = {
    "format": "jsonl", "document": "line", "document_pattern": "= .* =", "sentences": "none", "language": "de", "encoding": "latin-1",
    "max_tokens": 40, "on_overlong": "keep", "drop_lines": ("x",), "on_bad_text": "skip", "on_control": "keep", "line_ends": "lf",
    "on_empty": "error", "duplicates": "skip", "text_field": "body", "words": "punctuation", "normal_form": "nfc", "eos": "</s>",
    "file": "tokenizer.json", "rows": "document", "executor": "ray", "slurm": {"partition": "main"}, "dir": "elsewhere",
    "train": ("x",), "validation": ("x",), "test": ("x",), "workers": 3, "vocab_size": 300, "min_count": 3,
    "delimiter": ";", "quoting": "none",
}  # fmt: skip
TOGETHER = {"document_pattern": {"document": "pattern"}, "file": {"kind": "file"}}


def changed(section: str, name: str, kind: str) -> dict[str, object]:
    """Settings of a section in which one is not the default."""
    default = type(getattr(Config(), section)).model_fields[name].get_default(call_default_factory=True)
    if name in OTHERS:
        value = OTHERS[name]
    else:
        assert isinstance(default, bool | int | float), f"{section}.{name}: a setting without a value in OTHERS"
        value = not default if isinstance(default, bool) else default + (0.25 if isinstance(default, float) else 1)
    assert value != default
    return {**({"kind": kind} if section == "tokenizer" else {}), **TOGETHER.get(name, {}), name: value}


def settings(section: str, values: dict[str, object], kind: str) -> Config:
    return Config(**{"tokenizer": Tokenizer(kind=kind, file="t" if kind == "file" else None), section: values})


def lines(section: str, old: dict[str, object], new: dict[str, object], kind: str) -> list[str]:
    given = [Provenance(content_settings(settings(section, values, kind), None), {}) for values in (old, new)]
    return changes(*given)


@pytest.mark.parametrize("name", Corpus.model_fields)
def test_every_setting_of_the_corpus_counts_but_its_paths(name):
    new = changed("corpus", name, "word")
    old = {key: value for key, value in new.items() if key != name and name != "document_pattern"}
    differing = {line.split(":")[0] for line in lines("corpus", old, new, "word")}
    assert (f"corpus.{name}" in differing) == (name not in {"train", "validation", "test"})
    assert differing <= {f"corpus.{key}" for key in new}


@pytest.mark.parametrize("name", Dataset.model_fields)
def test_every_setting_of_the_dataset_counts_but_who_makes_it_and_where(name):
    differing = [line.split(":")[0] for line in lines("dataset", {}, changed("dataset", name, "word"), "word")]
    assert differing == ([] if name in {"dir", "executor", "workers", "slurm"} else [f"dataset.{name}"])


@pytest.mark.parametrize("kind", ["word", "character", "bpe"])
@pytest.mark.parametrize("name", [name for name in Tokenizer.model_fields if name not in ("kind", "file")])
def test_every_setting_of_a_trained_tokenizer_counts_that_its_kind_uses(kind, name):
    differing = [line.split(":")[0] for line in lines("tokenizer", {"kind": kind}, changed("tokenizer", name, kind), kind)]
    assert differing == ([f"tokenizer.{name}"] if name in tokenizers.KINDS[kind].settings else [])


def test_only_settings_that_exist_are_excluded():
    for section, names in NOT_CONTENT.items():
        assert names <= set(type(getattr(Config(), section)).model_fields)


def test_the_kind_of_tokenizer_and_the_content_of_a_pretrained_one_count(tmp_path):
    word, bpe = (content_settings(config.resolve({"tokenizer": {"kind": kind}}), None) for kind in ("word", "bpe"))
    assert any(line.startswith("tokenizer.kind: 'word' -> 'bpe'") for line in changes(Provenance(word, {}), Provenance(bpe, {})))
    fixed = settings("tokenizer", {"kind": "file", "file": "t"}, "file")
    old, new = (Provenance(content_settings(fixed, text), {}) for text in ("{}", "[]"))
    assert changes(old, new) == [f"tokenizer.file: {pretrained.identity('{}')!r} -> {pretrained.identity('[]')!r}"]

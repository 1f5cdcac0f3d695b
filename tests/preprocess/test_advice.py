"""Warnings about a dataset that was just made: held-out splits without text, and unknown words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.config import Tokenizer
from packlm.text import tokenizers

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def warnings(tmp_path: Path, command_line: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Builds a dataset with settings, by the command; returns its warnings, without those of overlap (`test_overlap.py`)."""
    monkeypatch.chdir(tmp_path)

    def build(**settings: object) -> list[str]:
        words = [f"--{key.replace('__', '.')}={value}" for key, value in settings.items()]
        options = ["--run.name=mine", "--dataset.workers=1", "--tracking.uri=", "--rebuild"]
        status, _, errors = command_line("preprocess", *words, *options)
        assert status == 0, errors
        lines = [line.partition("warning: ")[2] for line in errors.splitlines() if "warning: " in line]
        return [line for line in lines if not line.startswith("the training split also has")]

    return build


def test_a_held_out_split_that_comes_out_empty(warnings: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("One document. It has two sentences.\n\nAnd a paragraph.\n" * 20)
    (tmp_path / "blank.txt").write_text("\n \n\t\n")
    validation, test = warnings(corpus__train="one.txt")
    assert validation.startswith("the validation split is empty: corpus.validation_fraction = 0.05 of 1 document selected none; raise it, ")
    assert "--corpus.validation, or make smaller documents with --corpus.document paragraph" in validation and "test_fraction" in test
    (blank,) = warnings(corpus__train="one.txt", corpus__validation="blank.txt")
    assert blank == "the validation split is empty: there is nothing but whitespace in what corpus.validation names; name other files"
    assert warnings(corpus__train="one.txt", corpus__validation_fraction=0) == []
    assert warnings(corpus__train="one.txt", corpus__validation_fraction=0.2, corpus__document="paragraph") == []


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"kind": "word", "vocab_size": 10}, "use --tokenizer.kind bpe, which knows all text, or a larger --tokenizer.vocab_size"),
        ({"kind": "word", "min_count": 3}, "use --tokenizer.kind bpe, which knows all text, or --tokenizer.min_count 1"),
        ({"kind": "word"}, ""),
        ({"kind": "character", "vocab_size": 10}, "unknown to a vocabulary of 10; use --tokenizer.kind bpe"),
        ({"kind": "bpe", "vocab_size": 300}, ""),
        ({"kind": "file", "file": "t.json"}, "use a tokenizer of this language, or train one with --tokenizer.kind bpe"),
    ],
)
def test_many_unknown_words_in_held_out_text(
    warnings: Callable[..., list[str]], tmp_path: Path, settings: dict[str, object], remedy: str
) -> None:
    words = [f"w{number}" for number in range(30)]
    (tmp_path / "train.txt").write_text(" ".join([*words, *words]))
    (tmp_path / "test.txt").write_text(" ".join([*words, "new"]))  # 1 of 32 tokens is unknown to a vocabulary of all 30
    tokenizer = tokenizers.train(Tokenizer(kind="word", min_count=1), [" ".join(words[:10])])
    (tmp_path / "t.json").write_text(tokenizer.to_str())
    lines = warnings(corpus__train="train.txt", corpus__test="test.txt", **{f"tokenizer__{key}": value for key, value in settings.items()})
    assert len(lines) == bool(remedy) and all("% of the test tokens are unknown" in line and remedy in line for line in lines)

"""ARPA files: written and read back, read by the format's own definition, and refused with the line that is wrong."""

import math
from pathlib import Path

import numpy as np
import pytest

from packlm.base.errors import PacklmError, RequestError
from packlm.interpolation import arpa
from packlm.interpolation.backoff import BackoffModel
from packlm.interpolation.kneser_ney import kneser_ney
from tests.interpolation.test_kneser_ney import START, V, flat, text

TOKENS = ["<eos>", "the", "naïve", "Ġcat", "<unk>", "x\u00a0y"]
EOS = 0


def by_definition(file: Path, words: list[str]) -> float:
    """log10 P(last word | those before it), from the lines of a file."""
    listed = {}
    for line in file.read_text(encoding="utf-8").split("\n"):
        if "\t" in line:
            log_prob, ngram, *backoff = line.split("\t")
            listed[tuple(ngram.split(" "))] = float(log_prob), float(backoff[0]) if backoff else 0.0

    def log_prob(ngram: tuple[str, ...]) -> float:
        if ngram in listed:
            return listed[ngram][0]
        return listed.get(ngram[:-1], (0, 0.0))[1] + log_prob(ngram[1:])

    return log_prob(tuple(words))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("size", [2, 60])
def test_a_file_says_what_the_model_says(tmp_path: Path, order: int, size: int) -> None:
    model, file = kneser_ney(*flat(text(1, size)), V, order), tmp_path / "lm.arpa"
    arpa.write(file, model, TOKENS, EOS)
    names = ["</s>", *TOKENS[1:], "<s>"]
    again, sentences = arpa.read(file, TOKENS, EOS), text(2, 12)
    log_probs = model.log_probs(*flat(sentences)).tolist()
    assert again.log_probs(*flat(sentences)).tolist() == pytest.approx(log_probs, abs=1e-7)
    assert [part.keys.tolist() for part in again.orders] == [part.keys.tolist() for part in model.orders]
    expected = []
    for sentence in sentences:
        padded = [START, *sentence]
        contexts = [padded[max(0, index - order + 1) : index + 1] for index in range(1, len(padded))]
        expected += [by_definition(file, [names[id] for id in context]) * math.log(10) for context in contexts]
    assert log_probs == pytest.approx(expected, abs=1e-6)


OTHERS = """

\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0 <unk>
0 <s> -0.30103
-0.69897 </s>
-0.39794 the -0.5
-0.52288 Ġcat

\\2-grams:
-0.2 <s> the
-0.30103 the Ġcat
-0.1 Ġcat </s>

\\end\\
"""


def read(tmp_path: Path, content: str) -> BackoffModel:
    (tmp_path / "lm.arpa").write_text(content, encoding="utf-8")
    return arpa.read(tmp_path / "lm.arpa", TOKENS, EOS)


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    """KenLM gives `<s>` a log probability of 0; some put blanks between the fields; words may be missing."""
    model = read(tmp_path, OTHERS)
    log_probs = model.log_probs(np.array([1, 3, 0]), np.array([3])) / math.log(10)
    assert log_probs.tolist() == pytest.approx([-0.2, -0.30103, -0.1])
    log_probs = model.log_probs(np.array([3, 4, 1, 0]), np.array([4])) / math.log(10)
    assert log_probs.tolist() == pytest.approx([-0.30103 - 0.52288, -1.0, -0.39794, -0.5 - 0.69897])
    after_the = model.probabilities_after(np.array([[1]]))[0]
    assert after_the[[2, 5]].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.2 <s> the", "-0.2 <s> dog", r"line 15: 'dog' is no token"),
        ("-0.2 <s> the", "-0.2 <s>", r"line 15: expected log10 P, 2 words"),
        ("-0.2 <s> the", "x <s> the", r"2-grams from line 15 on: not a number"),
        ("-0.1 Ġcat </s>", "-0.2 <s> the", r"line 17: an n-gram that stands there twice"),
        ("ngram 2=3", "ngram 2=2", r"line 17: expected \\end\\"),
        ("ngram 2=3", "ngram 2=many", r"line 5: expected `ngram N=COUNT`"),
        ("\\2-grams:", "\\3-grams:", r"line 14: expected \\2-grams:"),
        ("\\end\\", "", r"expected \\end\\"),
        ("-0.69897 </s>", "-2 </s>", r"sum to 0.81"),
        (OTHERS, "the cat", r"no ARPA file"),
    ],
)
def test_a_wrong_file_is_refused_by_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OTHERS
    with pytest.raises((PacklmError, RequestError), match=message):
        read(tmp_path, OTHERS.replace(old, new))


def test_a_context_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    three = OTHERS.replace("ngram 2=3", "ngram 2=3\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1 the the Ġcat\n\n\\end\\")
    with pytest.raises(PacklmError, match="line 21: its first 2 words are no n-gram"):
        read(tmp_path, three)


def test_a_token_with_white_space_cannot_be_written(tmp_path: Path) -> None:
    model = kneser_ney(*flat(text(1, 5)), V, 2)
    with pytest.raises(RequestError, match=r"token 2, ' ', cannot be a word"):
        arpa.write(tmp_path / "lm.arpa", model, ["<eos>", "a", " ", "b", "c", "d"], EOS)
    assert not (tmp_path / "lm.arpa").exists()

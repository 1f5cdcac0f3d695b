"""The texts sampled at validations: no blank lines in them, and a page that marks what is no text."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models

from train.progress import samples


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """`<eos>`, two words, and the byte E9 alone, which is no UTF-8."""
    made = Tokenizer(models.BPE(vocab={"<eos>": 0, "Ġcat": 1, "dog": 2, "é": 3}, merges=[]))
    made.decoder = decoders.ByteLevel()
    return made


@pytest.mark.parametrize(
    ("single", "ids", "text"),
    [
        (True, [1, 2, 0, 0, 0, 2, 0], " catdog"),
        (True, [0, 0, 1], ""),
        (True, [1, 2], " catdog"),
        (False, [1, 2, 0, 0, 0, 2, 0], " catdog\ndog"),
        (False, [0, 0, 1], " cat"),
    ],
)
def test_a_text_has_no_empty_lines(tokenizer: Tokenizer, single: bool, ids: list[int], text: str) -> None:
    assert samples.Sampler(tokenizer, 1, 0, single)._text(ids) == text


def test_the_page_marks_bytes_that_are_no_text_and_has_no_gaps(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = samples.Sampler(tokenizer, 1, 0, True)._text([1, 3, 2])
    rows = samples.add_samples(tmp_path / "samples.jsonl", 0, None, [text, "a\x00b\n\n \n<c>\n"])
    page = (tmp_path / "samples.html").read_text(encoding="utf-8")
    assert "<td>cat<span>?</span>dog</td>" in page and "<td>a<span>00</span>b\n&lt;c&gt;</td>" in page
    assert rows[0]["text"] == text == " cat\ufffddog", "samples.jsonl and MLflow have the text as it is"

"""Overlong sentences are split where that hurts least; rows themselves are tested in test_encoder."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.text.document_block import DocumentBlock
from packlm.text.document_encoding import encode_documents
from packlm.text.encoder import Encoder

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.fixture(scope="module")
def encoder():
    """A token a byte."""
    tokenizer = Tokenizer(models.BPE({character: id for id, character in enumerate(["<eos>", *BYTES])}, []))
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True
    return Encoder(tokenizer, "")


def rows(texts, encoder, **rules):
    """(text of each row, the whitespace after it, whether it is joined to the next, words), of documents."""
    texts = DocumentBlock.of((f"{number}.txt", text) for number, text in enumerate(texts))
    made = encode_documents(texts, Corpus(sentences="line", **rules), encoder)
    ends = made.ends.tolist()
    found = [encoder.decode(made.ids[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return made, list(zip(found, made.gaps.to_pylist(), made.joined.tolist(), made.words.tolist(), strict=True))


def test_split_at_the_whitespace_nearest_to_equal_parts(encoder):
    made, found = rows(["on\nthe cat  sat on a mat\nit"], encoder, max_tokens=16)
    assert found == [("on", "\n", False, 1), ("the cat  sat", " ", True, 3), ("on a mat", "\n", False, 3), ("it", "", False, 1)]
    assert made.overlong == 1 and made.positions.tolist() == [0, 1, 2, 3]


def test_what_just_fits_is_left_alone(encoder):
    for text, count in (("seven b", 1), ("eight by", 2)):
        made, found = rows([text], encoder, max_tokens=8)
        assert len(found) == count and made.overlong == count - 1


def test_without_whitespace_split_between_characters(encoder):
    made, _ = rows(["ab" + "é" * 5 + "😀" * 4], encoder, max_tokens=10)
    texts = [encoder.decode(made.ids[start:end]) for start, end in zip([0, *made.ends.tolist()], made.ends.tolist(), strict=False)]
    assert made.overlong == 1 and "".join(texts) == "ab" + "é" * 5 + "😀" * 4 and "\ufffd" not in "".join(texts)
    assert max(map(len, (text.encode() for text in texts))) <= 9
    assert made.joined.tolist() == [True] * (len(texts) - 1) + [False] and made.words.tolist() == [1] + [0] * (len(texts) - 1)
    assert made.gaps.to_pylist() == [""] * len(texts)


def test_one_long_word_among_short_ones(encoder):
    text = "a b c " + "x" * 50 + " d e f"
    made, found = rows([text, "short"], encoder, max_tokens=12)
    assert "".join(row + gap for row, gap, _, _ in found) == text + "short"
    assert np.diff(made.ends, prepend=0).max() <= 12 and made.overlong == 1
    assert [joined for *_, joined, _ in found] == [True] * (len(found) - 2) + [False, False]
    assert "a b c" in [row for row, *_ in found] and "d e f" in [row for row, *_ in found]


def test_a_character_of_many_tokens_stays_whole():
    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<eos>", "<unk>"])
    tokenizer.normalizer = normalizers.NFKD()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    encoder = Encoder(tokenizer, "")
    letter = "\ufdfa"  # 18 characters in NFKD
    assert len(encoder.encode_open(letter)) > 8
    made = encode_documents(DocumentBlock.of([("", letter * 3)]), Corpus(sentences="none", max_tokens=8), encoder)
    assert made.bytes.tolist() == [3, 3, 3] and made.joined.tolist() == [True, True, False] and made.overlong == 1


def test_kept_or_refused(encoder):
    texts = ["fine\nthis is too long", "and this is longer", "fine"]
    made, found = rows(texts, encoder, max_tokens=10, on_overlong="keep")
    assert made.overlong == 2 and [row for row, *_ in found] == ["fine", "this is too long", "and this is longer", "fine"]
    with pytest.raises(PacklmError, match=r"^0\.txt: sentence 2 has 17 tokens, and corpus\.max_tokens is 10; .*on_overlong split or keep"):
        rows(texts, encoder, max_tokens=10, on_overlong="error")
    assert rows(["fine"] * 2, encoder, max_tokens=10, on_overlong="error")[0].overlong == 0


def test_rows_do_not_depend_on_what_is_beside_them(encoder):
    generator = np.random.default_rng(1)
    texts = ["".join(generator.choice(list("ab cé\u3000\n"), generator.integers(0, 90))) for _ in range(60)]
    together = rows(texts, encoder, max_tokens=9)[1]
    assert together == [row for text in texts for row in rows([text], encoder, max_tokens=9)[1]]

"""Ids of pre-tokens are the ids of the text, for every tokenizer that passes as safe; the others are recognized."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from packlm.text import encoding_cache, joined_encoding, pretokens
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoder
from packlm.text.sentences import piece_starts, spans

WORDS = [
    "a", "the", "Ab", "cat", "don't", "'s", "'", "''", "12", "3.5", "É", "é", "e\u0301", "\u0301", "\u00a8", "\u0345", "ﬁ", "ﷺ", "İ",
    "ΑΣ", "Σ",
    "あ", "漢字", "が", "\u3099", "😀", "👩\u200d👩", "\u180e", "\u200b", "\ufeff", "<eos>", "<unk>",
    "Ġ", "Ċ", "#", "_", "a_b", "...", "!", "\x00", "\x7f", "½", "가", "\u1161",
]  # fmt: skip
SPACES = [" ", "  ", "\n", "\t", "\r", "\r\n", "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u3000"]
TEXT = st.lists(st.sampled_from([*WORDS, *WORDS, *SPACES, " ", " ", " "]), max_size=14).map("".join) | st.text(max_size=20)
SAMPLE = ["the cat don't 12 3.5 a_b ... the é e\u0301 あ 漢字 😀", "a  b\tc\r\nd <unk> the the cat! cat's ﬁ", "".join(WORDS)]

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
CHARACTERS = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
PRE_TOKENIZERS = {
    "bytes": BYTE_LEVEL,
    "split": pre_tokenizers.WhitespaceSplit(),
    "punctuation": pre_tokenizers.Whitespace(),
    "bert": pre_tokenizers.BertPreTokenizer(),
    "characters": CHARACTERS,
    "sequence": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation()]),
    "split bytes": pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True)]),
}
NORMALIZERS = {
    "none": None,
    "lowercase": normalizers.Lowercase(),
    "nfc": normalizers.NFC(),
    "nfd": normalizers.NFD(),
    "nfkc": normalizers.NFKC(),
    "nfkd": normalizers.NFKD(),
    "all": normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]),
}


def trained(model, pre_tokenizer, normalizer=None):
    """A small tokenizer of a kind."""
    special = ["<eos>", "<unk>"]
    options = {"vocab_size": 400, "special_tokens": special, "show_progress": False}
    made, trainer = {
        "bpe": lambda: (
            models.BPE(unk_token="<unk>"),
            trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        ),
        "word": lambda: (models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**options)),
        "wordpiece": lambda: (models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(**options)),
        "unigram": lambda: (models.Unigram(), trainers.UnigramTrainer(**options, unk_token="<unk>")),
    }[model]()
    tokenizer = Tokenizer(made)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def ids_of(encoder, sentences):
    ids, ends = encoder.encode_sentences(sentences)
    return [ids[start : end - 1].tolist() for start, end in pairwise([0, *ends.tolist()])]


def expected(encoder, sentences):
    """What `tokenizers` says itself; `<eos>` becomes `<unk>`."""
    return [
        [encoder.unk if id == encoder.eos else id for id in encoding.ids]
        for encoding in encoder._tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
    ]


KINDS = [
    *(("bpe", pre, norm) for pre in PRE_TOKENIZERS for norm in ("none", "all")),
    *(("bpe", "bytes", norm) for norm in NORMALIZERS),
    *(("word", "split", norm) for norm in NORMALIZERS),
    *(("word", pre, norm) for pre in ("punctuation", "bert", "characters") for norm in ("none", "all")),
    *((model, pre, norm) for model in ("wordpiece", "unigram") for pre in ("split", "sequence") for norm in ("none", "all")),
]


@pytest.mark.parametrize(("model", "pre_tokenizer", "normalizer"), dict.fromkeys(KINDS))
@settings(deadline=None, max_examples=25)
@given(sentences=st.lists(TEXT, max_size=4))
@example(
    sentences=["", " ", "a", "  a", "a  ", "a \x1c b", "a \u0301b", "a\u00a8 b", "a \u00a8 b", "\u0301 a", "a\n\nb", "a \n b", "a'\n's"]
)
def test_ids_are_those_of_whole_sentences(model, pre_tokenizer, normalizer, sentences):
    encoder = KNOWN.get((model, pre_tokenizer, normalizer))
    if encoder is None:
        tokenizer = trained(model, PRE_TOKENIZERS[pre_tokenizer], NORMALIZERS[normalizer])
        assert pretokens.unsafe_reason(tokenizer) is None
        encoder = KNOWN[model, pre_tokenizer, normalizer] = Encoder(tokenizer, "")
    # The joining of texts is for many at a time: each sentence comes a second time among others.
    assert ids_of(encoder, sentences) == expected(encoder, sentences)
    encoder._cache.clear()
    assert ids_of(encoder, [*sentences, *WORDS]) == expected(encoder, [*sentences, *WORDS])


KNOWN: dict = {}
STRETCHES = ["a", " a", "a ", "a b", "a  b", "ab", " ", "", "é", "a\x1cb", "a \x1f", "\u3000"]


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(STRETCHES), min_size=1), data=st.data())
@example(parts=["a ", "b"], data=None)
@example(parts=["a", "  a"], data=None)
@example(parts=["a", "", "b"], data=None)
@example(parts=["a", " ", "b"], data=None)
def test_pre_tokens_are_words_where_that_is_said(parts, data):
    """Of any stretches of a text, also such as begin or end in white space or within a word."""
    after = np.cumsum([len(part.encode()) for part in parts], dtype=np.int64)
    before = np.append(0, after[:-1])
    chosen = np.array([data is None or data.draw(st.booleans()) for _ in parts])
    if not chosen.any():
        return
    text = np.frombuffer("".join(parts).encode(), np.uint8)
    values, ends, are_words = pretokens.split(text, before[chosen], after[chosen], False)
    rows = [values[start : end - 1].to_pylist() for start, end in pairwise([0, *ends.tolist()])]
    assert ["".join(row) for row in rows] == [part for part, taken in zip(parts, chosen, strict=True) if taken]
    if are_words:
        assert all(
            pre_token.removeprefix(" ") == pre_token.strip() != "" and len(pre_token.split()) == 1 for row in rows for pre_token in row
        )


@settings(deadline=None)
@given(documents=st.lists(TEXT, min_size=1, max_size=4), normalized=st.booleans(), size=st.sampled_from([1, 5, 1 << 22]))
def test_pre_tokens_make_up_the_sentences_and_are_counted(documents, normalized, size):
    texts = DocumentBlock.of(("", text) for text in documents)
    found = spans(texts, piece_starts(texts, "line"))
    if not len(found.starts):
        return
    sentences = [texts.data[start:end].tobytes().decode() for start, end in zip(found.starts, found.ends, strict=True)]
    values, ends, are_words = pretokens.split(texts.data, found.starts, found.ends, normalized)
    again = pretokens.split(texts.data, found.starts, found.ends, normalized, texts.edges)
    assert again.values.equals(values) and again.ends.tolist() == ends.tolist() and again.are_words == are_words
    rows = [values[start:end].to_pylist() for start, end in pairwise([0, *ends.tolist()])]
    assert not any(row.pop().strip() for row in rows)
    assert not are_words or [len(row) for row in rows] == [len(sentence.split()) for sentence in sentences]
    assert ["".join(row) for row in rows] == sentences
    assert all(pre_token[0] in "\t\n\v\f\r " and not pre_token[1].isspace() for row in rows for pre_token in row[1:])
    if not normalized and all(" " <= character <= "~" or character == "\n" for text in documents for character in text):
        assert [len(row) for row in rows] == [len(sentence.split()) for sentence in sentences]
        assert are_words == (not any("  " in sentence for sentence in sentences))
    whole, pretokens.SLICE_BYTES = pretokens.SLICE_BYTES, size
    try:
        counted: dict = {}
        for some, counts in pretokens.counts(texts.data, found.starts, found.ends, normalized, texts.edges):
            assert counts.dtype == np.int64 and (counts > 0).all()
            for pre_token, count in zip(some.to_pylist(), counts.tolist(), strict=True):
                counted[pre_token] = counted.get(pre_token, 0) + count
    finally:
        pretokens.SLICE_BYTES = whole
    flat = [pre_token for row in rows for pre_token in row]
    assert counted == {pre_token: flat.count(pre_token) for pre_token in flat}


@pytest.mark.parametrize(("model", "pre_tokenizer"), [("unigram", "metaspace"), ("bpe", "space first"), ("wordpiece", "added tokens")])
@settings(deadline=None, max_examples=25)
@given(sentences=st.lists(TEXT, max_size=4))
def test_ids_of_tokenizers_that_need_whole_sentences(model, pre_tokenizer, sentences):
    encoder = KNOWN.get((model, pre_tokenizer))
    if encoder is None:
        unsafe = {"metaspace": pre_tokenizers.Metaspace(), "space first": pre_tokenizers.ByteLevel(add_prefix_space=True)}
        tokenizer = trained(model, unsafe.get(pre_tokenizer, BYTE_LEVEL))
        if pre_tokenizer == "added tokens":
            tokenizer.add_tokens(["a b"])
        assert pretokens.unsafe_reason(tokenizer) is not None
        encoder = KNOWN[model, pre_tokenizer] = Encoder(tokenizer, "")
    for again in (sentences, [*sentences, "", *sentences, "the cat " * 30]):
        assert ids_of(encoder, again) == expected(encoder, again)


def test_what_is_not_safe():
    def why(change=None, **parts):
        tokenizer = trained("bpe", BYTE_LEVEL)
        values = json.loads(tokenizer.to_str())
        values["model"] |= parts.pop("model", {})
        tokenizer = Tokenizer.from_str(json.dumps(values | parts))
        tokenizer.encode_special_tokens = True
        if change is not None:
            change(tokenizer)
        return pretokens.unsafe_reason(tokenizer)

    space_first = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    split = {"type": "WhitespaceSplit"}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    assert why() is None
    assert why(model={"dropout": 0.0}) is None and "dropout" in why(model={"dropout": 0.1})
    assert "ByteLevel" in why(pre_tokenizer=space_first) and "begins with nothing" in why(pre_tokenizer=None)
    assert "ByteLevel" in why(pre_tokenizer={**space_first, "add_prefix_space": False, "use_regex": False})
    # Digits first would let the pattern of ByteLevel end where the digits begin.
    assert "Digits" in why(pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, {**space_first, "add_prefix_space": False}]})
    assert "Metaspace" in why(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, metaspace]})
    assert why(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, digits]}) is None
    assert "Strip" in why(normalizer={"type": "Strip", "strip_left": True, "strip_right": True})
    assert "Prepend" in why(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "▁"}]})
    assert "added tokens" in why(lambda tokenizer: tokenizer.add_tokens(["a b"]))
    assert "added tokens" in why(lambda tokenizer: setattr(tokenizer, "encode_special_tokens", False))
    assert "truncates or pads" in why(lambda tokenizer: tokenizer.enable_truncation(4))
    assert "truncates or pads" in why(lambda tokenizer: tokenizer.enable_padding())


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_text_with_letters_of_every_kind(kind):
    """Every character of Unicode between words, of which many do what nothing above does."""
    encoder = Encoder(trained(kind, PRE_TOKENIZERS["split" if kind == "word" else "bytes"], NORMALIZERS["nfkc"]), "")
    every = [chr(code) for code in range(0x20, 0x30000, 23) if not 0xD800 <= code < 0xE000]
    sentences = [f"the {character} cat{character} {character}12 {character}" for character in every]
    assert ids_of(encoder, sentences) == expected(encoder, sentences)


@pytest.mark.parametrize("name", ["ptb/ptb.valid.txt", "shakespeare/tinyshakespeare.txt", "wsj_articles/wsj_0001.txt"])
@pytest.mark.parametrize(("model", "pre_tokenizer"), [("word", "split"), ("word", "punctuation"), ("bpe", "bytes")])
def test_corpora(corpora, name, model, pre_tokenizer):
    sentences = (corpora / name).read_text(encoding="utf-8")[:100_000].split("\n")
    encoder = Encoder(trained(model, PRE_TOKENIZERS[pre_tokenizer]), "")
    assert ids_of(encoder, sentences) == expected(encoder, sentences)


def test_plain_pre_tokens_are_encoded_together(monkeypatch):
    """Words that are known to be one token, or to be separated by one, don't cost an encoding each."""
    sizes = []
    whole = joined_encoding.encode
    monkeypatch.setattr(joined_encoding, "encode", lambda tokenizer, texts: sizes.append(len(texts)) or whole(tokenizer, texts))
    words = [f"word{number}" for number in range(1000)]
    for model, pre_tokenizer in (("word", "split"), ("word", "bert"), ("bpe", "bytes")):
        encoder = Encoder(trained(model, PRE_TOKENIZERS[pre_tokenizer]), "")
        sizes.clear()
        encoder.encode_sentences([" ".join(words)])
        assert sum(sizes) <= 10, model


def test_a_word_is_known_wherever_it_is_looked_for(monkeypatch):
    """Behind any white space, beyond those that are looked for first, and after other pre-tokens have taken the place of these."""
    words = ["the", "cat", "don't", "12", "3.5", "never", "seen"]
    behind = [f"cat{space}cat the" for space in "\t\n\v\f\r "]
    doubled = [f"{word}  " * 9 + word for word in words]
    for most in (1, 1 << 14):
        monkeypatch.setattr(encoding_cache, "_MAX_FREQUENT", most)
        encoder = Encoder(trained("word", PRE_TOKENIZERS["split"]), "")
        for sentences in (words, behind, doubled, words, behind):
            assert ids_of(encoder, sentences) == expected(encoder, sentences)

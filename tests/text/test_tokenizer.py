"""Tokenizers made from counts and samples, what their settings mean, and what transformers makes of them."""

import itertools
import json
import logging
import random

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from packlm import config
from packlm.base.errors import RequestError
from packlm.text import tokenizer
from packlm.text.encoder import Encoder

SENTENCES = ["The cat sat, on the mat!", "the dog  <unk> the cat\n", "A dog saw the Bär 😀", " on and ON and on"]


def made(sentences=SENTENCES, **settings):
    return tokenizer.train(config.Tokenizer(**{"vocab_size": 300, **settings}), sentences)


def tokens(model, text):
    return model.encode(text, add_special_tokens=False).tokens


def test_counts_become_a_vocabulary():
    entries = [("the", 5), ("cat", 3), ("dog", 3), ("mat", 1)]
    for size, least, expected in ((10, 1, ["the", "cat", "dog", "mat"]), (4, 1, ["the", "cat"]), (10, 3, ["the", "cat", "dog"])):
        model = tokenizer.from_counts(config.Tokenizer(kind="word", vocab_size=size, min_count=least), entries)
        assert sorted(model.get_vocab().items(), key=lambda item: item[1]) == list(zip(["<eos>", "<unk>", *expected], itertools.count()))


def test_what_counts_as_a_word():
    assert tokens(made(kind="word"), "the cat sat, on\u2003mat!") == ["the", "cat", "sat,", "on", "mat!"]
    assert tokens(made(kind="word", words="punctuation"), "the cat sat, on\u2003mat!") == ["the", "cat", "sat", ",", "on", "mat", "!"]


@pytest.mark.parametrize("kind", ["word", "character", "bpe"])
def test_case_and_normal_form_hold_in_training_and_in_use(kind):
    lower = made(kind=kind, lowercase=True)
    assert tokens(lower, "THE CAT") == tokens(lower, "the cat") != tokens(made(kind=kind), "THE CAT")
    assert not any(token != token.lower() for token in lower.get_vocab() if kind != "bpe")
    composed = made(["e\u0301te e\u0301te"] * 3, kind=kind, normal_form="nfc")
    assert tokens(composed, "e\u0301te") == tokens(composed, "éte") and "<unk>" not in tokens(composed, "éte")
    both = made(["ﬁNE ﬁNE"] * 3, kind=kind, normal_form="nfkc", lowercase=True)
    assert tokens(both, "FINE") == tokens(both, "fine") and "<unk>" not in tokens(both, "FINE")
    kinds = [json.loads(model.to_str())["normalizer"] for model in (made(kind=kind), lower, composed, both)]
    assert [found and found["type"] for found in kinds] == [None, "Lowercase", "NFC", "Sequence"]
    assert tokenizer.lossless(made(kind=kind)) == (kind == "bpe")
    assert not any(map(tokenizer.lossless, (lower, composed, both)))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"kind": "bpe", "min_count": 2}, r"min_count = 2 does nothing with kind = 'bpe', only with 'word' or 'character'"),
        ({"kind": "character", "words": "punctuation"}, r"words = 'punctuation' .* 'character', only with 'word'"),
        ({"kind": "file", "file": "t.json", "lowercase": True}, r"lowercase = True .* 'file', only with 'word' or 'character' or 'bpe'"),
        ({"kind": "file", "file": "t.json", "normal_form": "nfc"}, r"normal_form = 'nfc' .* 'file'"),
        ({"kind": "word", "eos": "</s>"}, r"eos = '</s>' .* 'word', only with 'file'"),
        ({"kind": "bpe", "vocab_size": 256}, r"vocab_size: 256 is too small; 'bpe' needs at least 257"),
    ],
)
def test_settings_that_cannot_be(wrong, line):
    with pytest.raises(RequestError, match=rf"tokenizer\.{line}"):
        tokenizer.check(config.Tokenizer(**wrong))


def test_settings_without_effect_are_said(caplog):
    with caplog.at_level(logging.WARNING, "packlm"):
        tokenizer.check(config.Tokenizer(kind="word", sample_bytes=5, words="punctuation", min_count=2, lowercase=True, normal_form="nfc"))
        tokenizer.check(config.Tokenizer(kind="file", file="t.json", vocab_size=9, eos="</s>"))
        tokenizer.check(config.Tokenizer(kind="bpe", sample_bytes=5, vocab_size=300))
    assert [record.getMessage() for record in caplog.records] == [
        "tokenizer.sample_bytes = 5 does nothing with kind = 'word'", "tokenizer.vocab_size = 9 does nothing with kind = 'file'"
    ]  # fmt: skip


SPACED = ["  two  spaces\n\n and\tmore \n", "a\u00a0b \x1c c", "\n", "  ", "don't  <eos> <unk>", "x" * 100, *SENTENCES]


def trained_plainly(sentences, size):
    """What the trainer learns from the sentences themselves."""
    model = Tokenizer(tokenizer.models.BPE())
    model.pre_tokenizer, model.decoder = tokenizer.pre_tokenizers.ByteLevel(add_prefix_space=False), tokenizer.decoders.ByteLevel()
    trainer = tokenizer.trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=["<eos>"], show_progress=False,
        initial_alphabet=tokenizer.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    model.train_from_iterator(sentences, trainer)
    return model.to_str()


@pytest.mark.parametrize("feed", [1, 7, 1 << 16])
def test_bpe_learns_from_counts_what_it_learns_from_sentences(monkeypatch, feed):
    monkeypatch.setattr(tokenizer, "_FEED", feed)
    maker = random.Random(feed)
    sentences = [maker.choice(SPACED) + maker.choice(["", " ", "\n "]) + maker.choice(SPACED) for _ in range(300)]
    expected = trained_plainly(sentences, 330)
    assert made(sentences, vocab_size=330).to_str() == expected
    maker.shuffle(sentences)
    assert made(sentences, vocab_size=330).to_str() == expected


def test_bpe_learns_from_the_most_frequent_words(monkeypatch, caplog):
    sentences = ["often often often seldom", "often often often"] + [f"rare{number}" for number in range(50)]
    with caplog.at_level(logging.INFO, "packlm"):
        made(sentences)
        assert not caplog.records
        monkeypatch.setattr(tokenizer, "MOST_CHUNKS", 2)
        found = made(sentences, vocab_size=1000)
    assert "the 2 most frequent words, 10.5% of the text" in caplog.text  # 6 of 57 words
    assert found.to_str() == trained_plainly(["often often often"] * 2, 1000) != trained_plainly(sentences, 1000)
    monkeypatch.setattr(tokenizer, "MOST_CHUNKS", 100)
    monkeypatch.setattr(tokenizer, "_MOST_BYTES", len(" oftenoften"))
    assert made(sentences, vocab_size=1000).to_str() == found.to_str()


def test_a_sample_of_documents():
    names = [f"folder/file-{number // 1000}.txt:{number}" for number in range(20_000)]
    half, all_of_them = tokenizer.in_sample(names, 0.5), tokenizer.in_sample(names, 1.0)
    tenth = tokenizer.in_sample(pa.array(names), 0.1)
    # Four standard deviations of a fair draw, over all and over every run of a thousand.
    assert abs(half.mean() - 0.5) < 4 * (0.25 / 20_000) ** 0.5 and abs(tenth.mean() - 0.1) < 4 * (0.09 / 20_000) ** 0.5
    assert all(abs(run.mean() - 0.5) < 4 * (0.25 / 1000) ** 0.5 for run in half.reshape(20, 1000))
    assert half[tenth].all() and all_of_them.all() and len(all_of_them) == 20_000
    assert tokenizer.in_sample(names[::-1][:100], 0.5).tolist() == half[::-1][:100].tolist()
    assert tokenizer.in_sample([], 0.5).tolist() == [] == tokenizer.in_sample([], 1).tolist()
    # The same on every machine and in every version: what is resumed is the same sample.
    assert tokenizer.in_sample(["a", "b", "c", "d", "e", "f", "g", "h"], 0.5).astype(int).tolist() == [0, 1, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize(("kind", "words"), [("word", "space"), ("word", "punctuation"), ("character", "space"), ("bpe", "space")])
def test_transformers_reads_it_alike(tmp_path, kind, words, lowercase):
    transformers = pytest.importorskip("transformers", reason="transformers is optional")
    tokenizer.save(made(kind=kind, words=words, lowercase=lowercase).to_str(), tmp_path)
    ours = Encoder.load(tmp_path)
    for theirs in (transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert (theirs.eos_token_id, theirs.bos_token_id, theirs.unk_token_id) == (ours.eos, ours.eos, ours.unk)
        assert len(theirs) == ours.vocab_size
        for text in ["the cat sat , on the mat !", " The Bär's  dog .\n", "zebra 😀 don ' t", ""]:
            ids = ours.encode_open(text).tolist()
            assert theirs(text)["input_ids"] == ids
            assert theirs.decode(ids) == ours.decode(ids)

"""Tokenizers trained on counts and samples, their settings, and how transformers reads them."""

import itertools
import json
import logging
import random
import time
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from packlm import config
from packlm.base.errors import RequestError
from packlm.text import pretokens, tokenizer, tokenizers
from packlm.text.encoder import Encoder
from packlm.text.tokenizers import bpe
from packlm.text.tokenizers.word import Word
from preprocess.build import vocabulary

SENTENCES = ["The cat sat, on the mat!", "the dog  <unk> the cat\n", "A dog saw the Bär 😀", " on and ON and on"]


def trained(sentences=SENTENCES, **settings):
    return tokenizers.train(config.Tokenizer(**{"vocab_size": 300, **settings}), sentences)


def tokens(model, text):
    return model.encode(text, add_special_tokens=False).tokens


def test_counts_become_a_vocabulary():
    entries = [("the", 5), ("cat", 3), ("dog", 3), ("mat", 1)]
    for size, least, expected in ((10, 1, ["the", "cat", "dog", "mat"]), (4, 1, ["the", "cat"]), (10, 3, ["the", "cat", "dog"])):
        model = tokenizers.KINDS["word"].train(config.Tokenizer(kind="word", vocab_size=size, min_count=least), entries, 12)
        assert sorted(model.get_vocab().items(), key=lambda item: item[1]) == list(zip(["<eos>", "<unk>", *expected], itertools.count()))


def test_defaults_of_vocabularies_belong_to_the_kind():
    often = [f"w{number} w{number}" for number in range(10_000, 70_000)]
    words = trained([*often, "once"], kind="word", vocab_size=None)
    assert words.get_vocab_size() == 50_000 and tokens(words, "w10007 once") == ["w10007", "<unk>"]
    characters = trained(["".join(map(chr, range(0x4E00, 0x9000)))], kind="character", vocab_size=None)
    assert characters.get_vocab_size() == 2 + 0x9000 - 0x4E00
    # More text, a larger vocabulary; a setting with a value keeps it.
    assert [bpe.default_vocab_size(size) for size in (0, 100_000, 10**6, 10**7, 10**9)] == [500, 1000, 3200, 10_000, 16_000]
    small = trained(often[:3000], kind="bpe", vocab_size=None)
    assert small.get_vocab_size() == bpe.default_vocab_size(sum(map(len, often[:3000])))
    assert trained(often[:3000], kind="bpe", vocab_size=301).get_vocab_size() == 301
    assert tokens(trained(["a b b"], kind="word", min_count=1), "a") == ["a"]


def test_what_counts_as_a_word():
    words, punctuation = (trained(kind="word", words=words, min_count=1) for words in ("space", "punctuation"))
    assert tokens(words, "the cat sat, on\u2003mat!") == ["the", "cat", "sat,", "on", "mat!"]
    assert tokens(punctuation, "the cat sat, on\u2003mat!") == ["the", "cat", "sat", ",", "on", "mat", "!"]


@pytest.mark.parametrize("kind", ["word", "character", "bpe"])
def test_case_and_normal_form_hold_in_training_and_in_use(kind):
    lower = trained(kind=kind, lowercase=True)
    assert tokens(lower, "THE CAT") == tokens(lower, "the cat") != tokens(trained(kind=kind), "THE CAT")
    assert not any(token != token.lower() for token in lower.get_vocab() if kind != "bpe")
    composed = trained(["e\u0301te e\u0301te"] * 3, kind=kind, normal_form="nfc")
    assert tokens(composed, "e\u0301te") == tokens(composed, "éte") and "<unk>" not in tokens(composed, "éte")
    both = trained(["ﬁNE ﬁNE"] * 3, kind=kind, normal_form="nfkc", lowercase=True)
    assert tokens(both, "FINE") == tokens(both, "fine") and "<unk>" not in tokens(both, "FINE")
    kinds = [json.loads(model.to_str())["normalizer"] for model in (trained(kind=kind), lower, composed, both)]
    assert [found and found["type"] for found in kinds] == [None, "Lowercase", "NFC", "Sequence"]
    assert tokenizer.lossless(trained(kind=kind)) == (kind == "bpe")
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
def test_settings_that_contradict_the_kind_are_refused(wrong, line):
    with pytest.raises(RequestError, match=rf"tokenizer\.{line}"):
        tokenizers.check(config.Tokenizer(**wrong))


def test_harmless_settings_without_effect_give_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "packlm"):
        tokenizers.check(config.Tokenizer(kind="word", sample_bytes=5, words="punctuation", min_count=2, lowercase=True, normal_form="nfc"))
        tokenizers.check(config.Tokenizer(kind="file", file="t.json", vocab_size=9, eos="</s>"))
        tokenizers.check(config.Tokenizer(kind="bpe", sample_bytes=5, vocab_size=300))
    assert [record.getMessage() for record in caplog.records] == [
        "tokenizer.sample_bytes = 5 does nothing with kind = 'word'", "tokenizer.vocab_size = 9 does nothing with kind = 'file'"
    ]  # fmt: skip


SPACED = ["  two  spaces\n\n and\tmore \n", "a\u00a0b \x1c c", "\n", "  ", "don't  <eos> <unk>", "x" * 100, *SENTENCES]


def trained_plainly(sentences, size):
    """What the trainer learns from the sentences themselves."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=["<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    model.train_from_iterator(sentences, trainer)
    return model.to_str()


@pytest.mark.parametrize("feed", [1, 7, 1 << 16])
def test_bpe_learns_from_counts_what_it_learns_from_sentences(monkeypatch, feed):
    monkeypatch.setattr(bpe, "_FEED_BYTES", feed)
    maker = random.Random(feed)
    sentences = [maker.choice(SPACED) + maker.choice(["", " ", "\n "]) + maker.choice(SPACED) for _ in range(300)]
    expected = trained_plainly(sentences, 330)
    assert trained(sentences, vocab_size=330).to_str() == expected
    maker.shuffle(sentences)
    assert trained(sentences, vocab_size=330).to_str() == expected


def test_bpe_learns_from_a_sample_of_its_words(monkeypatch, caplog):
    sentences = ["often often often seldom", "often often often"] * 60 + [f"rare{number}" for number in range(50)]
    with caplog.at_level(logging.INFO, "packlm"):
        trained(sentences)
        assert not caplog.records
        monkeypatch.setattr(bpe, "MAX_PRE_TOKENS", 8)
        found = trained(sentences, vocab_size=1000)
    assert "bpe learns from a sample of 8 words, " in caplog.text
    # Frequent words are in it as they are; five of the rare ones stand for the others.
    learned = trained_plainly(["often often often seldom", "often often often"] * 60, 1000)
    assert set(json.loads(learned)["model"]["vocab"]) <= set(found.get_vocab()) | {"Ġseldom"}
    monkeypatch.setattr(bpe, "MAX_PRE_TOKENS", 1000)
    monkeypatch.setattr(bpe, "_MAX_BYTES", len("often often seldom") + 5 * len("rare10"))
    with caplog.at_level(logging.INFO, "packlm"):
        assert trained(sentences, vocab_size=1000).to_str() == found.to_str()


def made_up_text(seed, letters, space, lines, punctuation="，"):
    """Lines of made-up words, distributed by Zipf's law, of letters of a script; `space` stands between words."""
    maker = np.random.default_rng(seed)
    words = ["".join(map(chr, maker.choice(letters, maker.integers(1, 4)))) for _ in range(3000)]
    chosen = maker.zipf(1.3, (lines, 40)) % len(words)
    marks = maker.random((lines, 40)) < 0.1
    return [
        "".join(words[word] + (punctuation if mark else space) for word, mark in zip(*row, strict=True))
        for row in zip(chosen, marks, strict=True)
    ]


SCRIPTS = {
    "chinese": (np.arange(0x4E00, 0x5000), ""),
    "japanese": (np.array([*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)]), ""),
    "thai": (np.arange(0x0E01, 0x0E3A), ""),
    "latin": (np.arange(ord("a"), ord("z") + 1), " "),
}


def counted_bpe(lines, folder, monkeypatch, size):
    """The tokenizer that `preprocess` makes of sentences: counted by two tasks, whose counts are merged."""
    settings, kind = config.Tokenizer(kind="bpe", vocab_size=size), tokenizers.KINDS["bpe"]
    for number in range(2):
        counter = vocabulary.EntryCounter(settings)
        data = [line.encode() for line in lines[number::2]]
        ends = np.cumsum([len(text) for text in data])
        text = np.frombuffer(b"".join(data), np.uint8)
        for values, counts in pretokens.counts(text, ends - [len(text) for text in data], ends, False):
            counter.add(values, counts)
        counter.write(folder / str(number))
    paths = [folder / str(number) for number in range(2)]
    merged = vocabulary.merge(paths, kind.num_entries(settings), priorities_of=kind.priorities)
    return kind.train(settings, merged.entries, merged.tokens)


def test_bpe_learns_scripts_without_spaces_as_well_as_others(tmp_path, monkeypatch):
    """As well as the library's own trainer on random lines; where each line is a word of its own, the most frequent words are no sample."""
    texts = {name: made_up_text(1, *script, 700) for name, script in SCRIPTS.items()}
    lines = [line for of_script in zip(*(text[:600] for text in texts.values()), strict=True) for line in of_script]
    random.Random(1).shuffle(lines)
    sample_bytes = sum(len(line.encode()) for line in lines) // 4
    monkeypatch.setattr(bpe, "_MAX_BYTES", sample_bytes // 2)  # of distinct words
    ours = counted_bpe(lines, tmp_path, monkeypatch, 2000)
    theirs = Tokenizer.from_str(trained_plainly(lines[: len(lines) // 4], 2000))
    for name, text in texts.items():
        num_characters = sum(map(len, text[600:]))
        lengths = [num_characters / sum(len(model.encode(line).ids) for line in text[600:]) for model in (ours, theirs)]
        assert lengths[0] > 0.9 * lengths[1], (name, lengths)


def test_bpe_counted_by_tasks_is_what_the_library_learns_from_the_lines(tmp_path, monkeypatch):
    """Where all words fit in the sample: also lines without spaces, which are counted in the pieces that the tokenizer splits them into."""
    lines = [line for script in SCRIPTS.values() for line in made_up_text(2, *script, 40, "，\u3000\u3000 's ")]
    lines += ["x" * 300 + "\u00a0" * 3 + "y" * 80 + "!?" * 40 + "1" * 70]
    assert counted_bpe(lines, tmp_path, monkeypatch, 1000).to_str() == trained_plainly(lines, 1000)


def test_a_sample_of_documents():
    names = [f"folder/file-{number // 1000}.txt:{number}" for number in range(20_000)]
    half, all_of_them = bpe.in_sample(names, 0.5), bpe.in_sample(names, 1.0)
    tenth = bpe.in_sample(pa.array(names), 0.1)
    # Four standard deviations of fair sampling, over all and over every run of a thousand.
    assert abs(half.mean() - 0.5) < 4 * (0.25 / 20_000) ** 0.5 and abs(tenth.mean() - 0.1) < 4 * (0.09 / 20_000) ** 0.5
    assert all(abs(run.mean() - 0.5) < 4 * (0.25 / 1000) ** 0.5 for run in half.reshape(20, 1000))
    assert half[tenth].all() and all_of_them.all() and len(all_of_them) == 20_000
    assert bpe.in_sample(names[::-1][:100], 0.5).tolist() == half[::-1][:100].tolist()
    assert bpe.in_sample([], 0.5).tolist() == [] == bpe.in_sample([], 1).tolist()
    # The same on every machine and in every version: what is resumed is the same sample.
    assert bpe.in_sample(["a", "b", "c", "d", "e", "f", "g", "h"], 0.5).astype(int).tolist() == [0, 1, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize(("kind", "words"), [("word", "space"), ("word", "punctuation"), ("character", "space"), ("bpe", "space")])
def test_transformers_encodes_and_decodes_alike(tmp_path, kind, words, lowercase):
    import transformers

    tokenizer.save(trained(kind=kind, words=words, lowercase=lowercase).to_str(), tmp_path)
    ours = Encoder.load(tmp_path)
    for theirs in (transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert (theirs.eos_token_id, theirs.bos_token_id, theirs.unk_token_id) == (ours.eos, ours.eos, ours.unk)
        assert len(theirs) == ours.vocab_size
        for text in ["the cat sat , on the mat !", " The Bär's  dog .\n", "zebra 😀 don ' t", ""]:
            ids = ours.encode_open(text).tolist()
            assert theirs(text)["input_ids"] == ids
            assert theirs.decode(ids) == ours.decode(ids)


class Syllables(Word):
    """A toy kind: words of two letters."""

    settings = ("vocab_size",)

    def pre_tokenizer(self, settings):
        return pre_tokenizers.Split(Regex(r"\S\S?"), "removed", invert=True)

    def entries(self, settings, pre_tokens, counts):
        split = [[part for part, _ in self.pre_tokenizer(settings).pre_tokenize_str(text)] for text in pre_tokens.to_pylist()]
        return pa.array([part for parts in split for part in parts]), np.repeat(counts, list(map(len, split)))


def test_a_kind_is_one_object_in_a_table(monkeypatch, tmp_path):
    monkeypatch.setitem(tokenizers.KINDS, "syllable", Syllables())
    settings = config.Tokenizer.model_construct(**config.Tokenizer(vocab_size=5).model_dump() | {"kind": "syllable"})
    tokenizers.check(settings)
    counter = vocabulary.EntryCounter(settings)
    counter.add(pa.array(["mama", " papa"]), np.array([2, 1]))
    counter.write(tmp_path / "counts")
    counted = vocabulary.merge([tmp_path / "counts"], tokenizers.KINDS["syllable"].num_entries(settings))
    assert counted.entries == [("ma", 4), ("pa", 2)]
    model = tokenizers.KINDS["syllable"].train(tokenizers.KINDS["syllable"].resolve(settings), counted.entries, counted.tokens)
    assert tokens(model, "mapa lulu") == ["ma", "pa", "<unk>", "<unk>"]
    assert tokens(tokenizers.train(settings, ["mama", "mama papa papa"]), "mapa") == ["ma", "pa"]


def test_every_kind_has_its_name_in_the_settings():
    assert set(tokenizers.KINDS) == set(get_args(config.Tokenizer.model_fields["kind"].annotation))


def test_a_word_of_a_megabyte_is_learned_from_in_seconds():
    """The library's trainer would take ten minutes: its time grows with the square of the length of a word."""
    began = time.monotonic()
    model = trained(["x" * 1_000_000, " the cat sat" * 9], kind="bpe", vocab_size=265)
    assert time.monotonic() - began < 60
    assert tokens(model, "x" * 4096) == ["x" * 256] * 16

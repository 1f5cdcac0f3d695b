"""Tokenizers, and text to ids and back."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline import config, files
from pipeline.config import Corpus
from pipeline.errors import PacklmError, RequestError
from preprocess import encoding, tokenizer
from preprocess.encoding import Encoder, encode_documents

SENTENCES = ["the cat sat on the mat", "the dog <unk> the cat", "the dog saw the Bär 😀", "on and on and on"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    def make(kind, vocab_size=400):
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save(tokenizer.train(config.Tokenizer(kind=kind, vocab_size=vocab_size), SENTENCES).to_str(), folder)
        return Encoder.load(folder)

    return make


@pytest.fixture(scope="module")
def bpe(encoder):
    return encoder("bpe")


@given(text=st.text() | st.sampled_from(["<eos>", " <eos> a<unk>", "\x00\r\n", "\ufeff"]))
def test_bpe_gives_back_any_text(bpe, text):
    ids = bpe.encode_open(text)
    assert bpe.lossless and bpe.unk is None and bpe.eos not in ids
    assert bpe.decode(ids) == text


def test_bpe_has_every_byte_and_eos_first(bpe):
    assert bpe.eos == 0
    assert {bpe.token(bpe.encode_open(chr(byte))[0]) for byte in range(128)} == {chr(byte) for byte in range(128)}
    assert "".join(bpe.token(id) for id in bpe.encode_open("the 😀")) in ("the 😀", r"the \xf0\x9f\x98\x80")
    assert bpe.token(bpe.eos) == "<eos>"


def test_training_gives_the_same_file_twice():
    for kind in ("word", "character", "bpe"):
        settings = config.Tokenizer(kind=kind, vocab_size=300)
        assert tokenizer.train(settings, SENTENCES).to_str() == tokenizer.train(settings, iter(SENTENCES)).to_str()


def test_words(encoder):
    words = encoder("word", 8)
    assert (words.eos, words.unk, words.vocab_size, words.lossless, words.spelled_eos) == (0, 1, 8, False, True)
    # most frequent first, then by the alphabet; a spelled <unk> is the unknown word and takes no entry of its own
    assert [words.token(id) for id in range(8)] == ["<eos>", "<unk>", "the", "on", "and", "cat", "dog", "Bär"]
    assert words.encode_open("the cat <unk> zebra\n dog").tolist() == [2, 5, 1, 1, 6]
    assert words.encode_open("the <eos> cat").tolist() == [2, 1, 5]  # text never becomes the end of a sentence
    assert words.decode([2, 5, 1]) == "the cat <unk>"


def test_characters(encoder):
    characters = encoder("character")
    assert not characters.spelled_eos and not characters.lossless and characters.eos == 0 and characters.unk == 1
    ids = characters.encode_open("the <eos>")
    assert len(ids) == 9 and 0 not in ids
    assert characters.decode(characters.encode_open("saw the Bär 😀")) == "saw the Bär 😀"
    assert characters.encode_open("q\n").tolist() == [1, 1]


def test_decoding_leaves_eos_out(bpe):
    one, two = bpe.encode_open("One.").tolist(), bpe.encode_open("Two.").tolist()
    assert bpe.decode([0, *one, 0]) == "One." and bpe.decode([]) == bpe.decode([0]) == ""
    assert bpe.decode(np.array([0, *one, 0, *two, 0])) == "One.\nTwo."


@given(texts=st.lists(st.text()), batch=st.integers(1, 20))
def test_sentences_are_encoded_one_by_one(bpe, texts, batch):
    whole, encoding._BATCH_CHARACTERS = encoding._BATCH_CHARACTERS, batch
    try:
        ids, ends = bpe.encode_sentences(texts)
    finally:
        encoding._BATCH_CHARACTERS = whole
    assert [ids[start:end].tolist() for start, end in pairwise([0, *ends])] == [[*bpe.encode_open(text).tolist(), 0] for text in texts]


@given(texts=st.lists(st.text(st.characters(codec="utf-8", categories=["L", "Z", "P", "Cc"]), min_size=1).filter(str.strip), max_size=4))
def test_encoded_documents_add_up(bpe, texts):
    rules = Corpus()
    made = encode_documents([(str(number), text) for number, text in enumerate(texts)], rules, bpe)
    assert made.num_documents == len(texts) == made.opens.sum() == (made.positions == 0).sum()
    assert made.num_words == made.sentence_words.sum() == sum(len(text.split()) for text in texts)
    assert made.num_bytes == len("".join(texts).encode()) == made.sentence_bytes.sum() + len("".join(made.leads + made.gaps).encode())
    assert (made.ids == bpe.eos).sum() == len(made.ends)
    back = dict.fromkeys(map(str, range(len(texts))), "")
    for name, lead, gap, (start, end) in zip(made.documents, made.leads, made.gaps, pairwise([0, *made.ends]), strict=True):
        back[name] += lead + bpe.decode(made.ids[start:end]) + gap
    assert list(back.values()) == texts


@pytest.mark.parametrize(("kind", "size", "minimum"), [("bpe", 256, 257), ("word", 2, 3), ("character", 1, 3)])
def test_a_vocabulary_too_small(kind, size, minimum):
    with pytest.raises(RequestError, match=rf"tokenizer\.vocab_size: {size} is too small.* at least {minimum}"):
        tokenizer.check(config.Tokenizer(kind=kind, vocab_size=size))
    tokenizer.check(config.Tokenizer(kind=kind, vocab_size=minimum))


def test_files_that_are_no_tokenizer_of_ours(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(RequestError, match=r"t\.json: there is no such"):
        tokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(RequestError, match=r"t\.json: not a tokenizer"):
        tokenizer.load(path)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(RequestError, match=r"t\.json: no <eos> .*add_special_tokens"):
        tokenizer.load(path)


def test_what_is_lossless(bpe, tmp_path):
    def changed(**parts):
        values = json.loads(bpe._tokenizer.to_str()) | parts
        return tokenizer.lossless(Tokenizer.from_str(json.dumps(values)))

    space_first = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    removing = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
    assert changed()
    assert not changed(normalizer={"type": "Lowercase"}) and not changed(pre_tokenizer=space_first) and not changed(decoder=None)
    assert not changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [removing, {**space_first, "add_prefix_space": False}]})


def test_a_file_whose_text_becomes_eos_is_refused(tmp_path):
    model = Tokenizer(models.BPE({"<eos>": 0, "a": 1}, []))
    model.add_tokens(["<eos>"])  # not special: found in text
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder.load(tmp_path)
    assert encoder.spelled_eos and not encoder.lossless and encoder.digest == files.sha256(tmp_path / "tokenizer.json")
    with pytest.raises(PacklmError, match="spells <eos>"):
        encoder.encode_open("a <eos>")


def test_transformers_loads_it(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is optional")
    made = tokenizer.train(config.Tokenizer(kind="bpe", vocab_size=300), SENTENCES)
    tokenizer.save(made.to_str(), tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs.eos_token_id == 0 and theirs("the cat")["input_ids"] == made.encode("the cat").ids

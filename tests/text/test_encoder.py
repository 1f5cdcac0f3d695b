"""Tokenizers, and text to ids and back."""

import json
import logging
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus
from packlm.text import encoding_cache, joined_encoding, overlong, pretokens, tokenizer, tokenizers
from packlm.text.document_block import DocumentBlock
from packlm.text.document_encoding import encode_documents
from packlm.text.encoder import Encoder
from preprocess.build import learn

SENTENCES = ["the cat sat on the mat", "the dog <unk> the cat", "the dog saw the Bär 😀", "on and on and on"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    def make(kind, vocab_size=400):
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save(tokenizers.train(config.Tokenizer(kind=kind, vocab_size=vocab_size, min_count=1), SENTENCES).to_str(), folder)
        return Encoder.load(folder)

    return make


@pytest.fixture(scope="module")
def encoders(encoder):
    return {kind: encoder(kind) for kind in ("bpe", "word", "character")}


@pytest.fixture(scope="module")
def bpe(encoders):
    return encoders["bpe"]


@settings(deadline=None)
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


def test_which_words_would_become_the_end_of_a_sentence():
    def spelled(**settings):
        found = learn.spelled_eos(config.Tokenizer(**settings), None)
        return [word for word in ("<eos>", "<EOS>", "<eoſ>", "eos") if found and re.fullmatch(found, word)]

    assert spelled(kind="word") == ["<eos>"] and spelled(kind="word", lowercase=True) == ["<eos>", "<EOS>"]
    assert not spelled(kind="word", words="punctuation") and not spelled(kind="character") and not spelled(kind="bpe")


def test_training_gives_the_same_file_twice():
    for kind in ("word", "character", "bpe"):
        settings = config.Tokenizer(kind=kind, vocab_size=300)
        assert tokenizers.train(settings, SENTENCES).to_str() == tokenizers.train(settings, iter(SENTENCES)).to_str()


def test_words(encoder):
    words = encoder("word", 8)
    assert (words.eos, words.unk, words.vocab_size, words.lossless, words.spelled_eos) == (0, 1, 8, False, "<eos>")
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


def test_decoding_drops_eos(bpe):
    one, two = bpe.encode_open("One.").tolist(), bpe.encode_open("Two.").tolist()
    assert bpe.decode([0, *one, 0]) == "One." and bpe.decode([]) == bpe.decode([0]) == ""
    assert bpe.decode(np.array([0, *one, 0, *two, 0])) == "One.\nTwo."


@pytest.fixture
def sizes(monkeypatch):
    """Sets how much text is looked at, encoded and remembered at a time."""

    def choose(size):
        monkeypatch.setattr(pretokens, "SLICE_BYTES", size)
        monkeypatch.setattr(joined_encoding, "_BATCH_CHARACTERS", size)
        monkeypatch.setattr(encoding_cache, "_MAX_ENTRIES", size)
        monkeypatch.setattr(joined_encoding, "_JOINED_TEXTS", size)
        monkeypatch.setattr(overlong, "_GATHER_ROWS", size)

    return choose


TEXTS = st.lists(
    st.text() | st.lists(st.sampled_from(["the ", "cat ", "é", "😀", " ", "\n", "\u3000", "\x1c", "a" * 70])).map("".join), max_size=6
)


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS, size=st.integers(1, 20) | st.just(1 << 22))
def test_sentences_are_encoded_one_by_one(encoders, sizes, kind, texts, size):
    encoder = encoders[kind]
    sizes(size)
    ids, ends = encoder.encode_sentences(texts)
    assert ids.dtype == encoder.id_type and ends.dtype == np.int64
    assert [ids[start:end].tolist() for start, end in pairwise([0, *ends])] == [[*encoder.encode_open(text).tolist(), 0] for text in texts]


@settings(deadline=None)
@given(
    parts=st.lists(st.sampled_from(["the ", " cat", "é", " ", "", "a b c", "  "]), max_size=9), taken=st.lists(st.booleans(), min_size=9)
)
def test_text_between_sentences_is_skipped(bpe, parts, taken):
    after = np.cumsum([len(part.encode()) for part in parts], dtype=np.int64)
    before = after - np.array([len(part.encode()) for part in parts], np.int64)
    chosen = np.array(taken[: len(parts)], bool)
    ids, ends = bpe.encode_spans(np.frombuffer("".join(parts).encode(), np.uint8), before[chosen], after[chosen])
    expected = bpe.encode_sentences([part for part, take in zip(parts, taken, strict=False) if take])
    assert ids.tolist() == expected[0].tolist() and ends.tolist() == expected[1].tolist()


def test_what_is_remembered_is_bounded_and_changes_nothing(encoders, monkeypatch):
    encoder = Encoder(encoders["bpe"]._tokenizer, "")
    monkeypatch.setattr(encoding_cache, "_MAX_ENTRIES", 50)
    generator = np.random.default_rng(1)
    for _ in range(20):
        words = ["".join(map(chr, generator.integers(97, 123, 4))) for _ in range(30)]
        sentences = [" ".join(words), " ".join(words), words[0] * 30]
        assert encoder.encode_sentences(sentences)[0].tolist() == Encoder(encoder._tokenizer, "").encode_sentences(sentences)[0].tolist()
        assert len(encoder._cache) <= 50 + 2 * 30
        assert 0 < encoder._cache._entries._lengths.values.max() <= 64


def test_a_tokenizer_that_needs_whole_sentences(caplog):
    made = Tokenizer(models.Unigram([("<eos>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0), ("▁a", -1.0)], unk_id=1))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder = Encoder(made, "")
    with caplog.at_level(logging.INFO, "packlm"):
        ids, ends = encoder.encode_sentences(["a a", "", "a b"])
        encoder.encode_sentences(["a"])
    assert [record.getMessage() for record in caplog.records] == [
        "the tokenizer needs whole sentences, which is slower than word by word: its pre-tokenizer begins with Metaspace"
    ]
    assert ids.tolist() == [4, 4, 0, 0, 4, 2, 1, 0] and ends.tolist() == [3, 4, 8]


DOCUMENTS = st.lists(
    st.text(st.characters(codec="utf-8", categories=["L", "Z", "P", "Cc"]))
    | st.lists(st.sampled_from(["the", "cat", "é" * 9, "😀", "a" * 40, " ", "  ", "\n", "\u3000", ". "])).map("".join),
    max_size=4,
)


def written_back(made, encoder, names):
    """The documents that ids, leads and gaps stand for."""
    back = dict.fromkeys(names, "")
    rows = zip(made.documents.tolist(), made.leads.to_pylist(), made.gaps.to_pylist(), pairwise([0, *made.ends.tolist()]), strict=True)
    for document, lead, gap, (start, end) in rows:
        back[names[document]] += lead + encoder.decode(made.ids[start:end]) + gap
    return list(back.values())


@pytest.mark.parametrize("rule", ["line", "sentencex", "none"])
@settings(deadline=None)
@given(texts=DOCUMENTS, most=st.none() | st.integers(8, 30))
@example(texts=[" \n", "a b", "", "c"], most=None)
def test_encoded_documents_add_up(bpe, rule, texts, most):
    names = [str(number) for number in range(len(texts))]
    made = encode_documents(DocumentBlock.of(zip(names, texts, strict=True)), Corpus(sentences=rule, max_tokens=most), bpe)
    filled = [text for text in texts if text.strip()]
    assert made.num_documents == len(filled) == len(made.document_starts) == (made.positions == 0).sum()
    assert made.num_words == made.words.sum() == sum(len(text.split()) for text in texts)
    for number, text in enumerate(texts):
        assert made.words[made.documents == number].sum() == len(text.split())
        assert made.positions[made.documents == number].tolist() == list(range((made.documents == number).sum()))
    around = "".join(made.leads.to_pylist() + made.gaps.to_pylist())
    assert made.num_bytes == len("".join(texts).encode())
    assert made.bytes.sum() + len(around.encode()) == len("".join(filled).encode()) and not around.strip()
    assert (made.ids == bpe.eos).sum() == len(made.ends) and (made.ids[made.ends - 1] == bpe.eos).all()
    rows = [0, *made.ends.tolist()]
    assert made.document_starts.tolist() == [rows[index] for index in np.flatnonzero(made.positions == 0)]
    assert [text for text in written_back(made, bpe, names) if text] == filled
    if most is None:
        assert not made.joined.any() and made.overlong == 0
    else:
        assert np.diff(made.ends, prepend=0).max(initial=0) <= most


def test_columns_have_their_types(bpe):
    made = encode_documents(DocumentBlock.of([("a", " One. Two.\n"), ("b", "Three.")]), Corpus(), bpe)
    types = {"ids": "uint16", "ends": "int64", "document_starts": "int64", "documents": "int32", "positions": "int32", "words": "int32"}
    assert {name: getattr(made, name).dtype.name for name in (*types, "bytes", "joined")} == types | {"bytes": "int32", "joined": "bool"}
    assert made.leads.to_pylist() == [" ", "", ""] and made.gaps.to_pylist() == [" ", "\n", ""]
    assert made.documents.tolist() == [0, 0, 1] and made.bytes.tolist() == [4, 4, 6]


def test_pieces_may_be_given(bpe):
    texts = DocumentBlock.of([("a", "One. Two.\nThree.")])
    made = encode_documents(texts, Corpus(sentences="none"), bpe, np.array([0, 10]))
    assert made.ids.tolist() == encode_documents(texts, Corpus(sentences="line"), bpe).ids.tolist()


@pytest.mark.parametrize(("kind", "size", "minimum"), [("bpe", 256, 257), ("word", 2, 3), ("character", 1, 3)])
def test_a_vocabulary_too_small(kind, size, minimum):
    with pytest.raises(RequestError, match=rf"tokenizer\.vocab_size: {size} is too small.* at least {minimum}"):
        tokenizers.check(config.Tokenizer(kind=kind, vocab_size=size))
    tokenizers.check(config.Tokenizer(kind=kind, vocab_size=minimum))


def test_files_that_are_no_tokenizer_of_ours(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(RequestError, match=r"t\.json: no such tokenizer"):
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
    import transformers

    made = tokenizers.train(config.Tokenizer(kind="bpe", vocab_size=300), SENTENCES)
    tokenizer.save(made.to_str(), tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs.eos_token_id == 0 and theirs("the cat")["input_ids"] == made.encode("the cat").ids

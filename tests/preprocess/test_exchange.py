"""Encoders that tell each other what they have encoded: fewer chunks to encode, the same ids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packlm import config
from packlm.text import encoding_cache, exchange, tokenizer
from packlm.text.encoder import Encoder
from packlm.text.exchange import Exchange
from tests.small_corpus import tree

WORDS = [f"{left}{right}" for left in ("cat", "dog", "é", "😀", "12") for right in ("", "s", ".", "-like", "a" * 70)]


@pytest.fixture(scope="module", params=["bpe", "word"])
def folder(request, tmp_path_factory):
    """A tokenizer, which for words has a normalizer: else none would need to be remembered."""
    made = tmp_path_factory.mktemp(request.param)
    model = tokenizer.train(config.Tokenizer(kind=request.param, vocab_size=280, lowercase=request.param == "word"), WORDS)
    tokenizer.save(model.to_str(), made)
    return made


def ids(encoder, texts):
    return encoder.encode_sentences(texts)[0].tolist()


@settings(deadline=None)
@given(turns=st.lists(st.tuples(st.integers(0, 2), st.lists(st.sampled_from(WORDS) | st.text(), max_size=6)), max_size=12))
def test_the_ids_of_an_encoder_that_is_alone(folder, tmp_path_factory, turns):
    """Three take turns, whatever they have heard of."""
    shared, alone = tmp_path_factory.mktemp("exchange"), Encoder.load(folder)
    several = [Encoder.load(folder, Exchange(shared)) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_FEWEST", 1)
        patch.setattr(exchange, "_MOST_LOTS", 2)
        patch.setattr(encoding_cache, "_MOST_CHUNKS", 10)
        for who, words in turns:
            text = " ".join(words)
            assert ids(several[who], [text, "cat"]) == ids(alone, [text, "cat"])


def test_what_one_has_encoded_the_other_does_not(folder, tmp_path, monkeypatch):
    encoded = []
    real = encoding_cache.encode
    monkeypatch.setattr(encoding_cache, "encode", lambda model, texts: encoded.extend(texts) or real(model, texts))
    monkeypatch.setattr(exchange, "_FEWEST", 100)
    sentences = [" ".join(f"Word{number}" for number in range(200))]
    expected = ids(Encoder.load(folder), sentences)
    one, other = (Encoder.load(folder, Exchange(tmp_path)) for _ in range(2))
    encoded.clear()
    assert ids(one, sentences) == expected and "".join(encoded)
    encoded.clear()
    assert ids(other, sentences) == expected and not "".join(encoded)
    assert len(list(tmp_path.iterdir())) == 1


def test_few_chunks_are_kept_to_oneself(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_FEWEST", 100)
    one = Encoder.load(folder, Exchange(tmp_path))
    ids(one, [" ".join(f"word{number}" for number in range(90))])
    assert not list(tmp_path.iterdir())


def test_processes_that_tell_each_other_change_no_byte(made, corpus):
    """More words than two processes encode without telling."""
    generator = np.random.default_rng(3)
    for name in ("f.txt", "g.txt", "h.txt", "i.txt"):
        words = ["".join(map(chr, generator.integers(97, 123, 5))) for _ in range(6000)]
        (corpus / name).write_text(" ".join(words * 3), encoding="utf-8")
    rules = {"dataset__shards": 4, "corpus__on_bad_text": "replace"}
    whole = tree(made(**rules)[0])
    folder, _ = made(dataset__workers=2, **rules)
    assert tree(folder) == whole
    assert not list(folder.parent.glob(".*.building"))

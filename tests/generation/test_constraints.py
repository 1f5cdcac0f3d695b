"""Logits processors and stopping criteria, compared with the list of all sequences."""

import re
from functools import cache
from typing import Any

import pytest
import torch

from packlm import config
from packlm.base.errors import RequestError
from packlm.config import Generate
from packlm.generation.banned_words import BannedWords
from tests.generation.enumeration import EOS, Sequence, as_pairs, enumerate_all, run, spelled_as, tiny

PIECES = (".", "a", " b", " ", "ab")
TEXT = spelled_as(*PIECES)
LIMIT = 4


def text(ids: Sequence) -> str:
    return "".join(PIECES[value] for value in ids)


def all_possible(prompt: Sequence = (EOS,), **settings: Any) -> dict[Sequence, float]:
    """Every sequence that a beam with room for all finds."""
    model = tiny(vocabulary=len(PIECES))
    (generated,) = run(model, [prompt], text=TEXT, strategy="beam", beams=700, samples=700, max_tokens=LIMIT, **settings)
    assert len({ids for ids, _ in as_pairs(generated)}) == len(generated)
    return dict(as_pairs(generated))


@cache
def expected(prompt: Sequence = (EOS,), **rules: Any) -> dict[Sequence, float]:
    return enumerate_all(tiny(vocabulary=len(PIECES)), prompt, LIMIT, **rules)


def test_fewest_tokens() -> None:
    truth = expected(may=lambda ids: ids[-1] != EOS or len(ids) >= 3)
    assert all_possible(min_tokens=3) == pytest.approx(truth, abs=1e-9)
    assert {len(ids) for ids in truth} == {3, 4}


@pytest.mark.parametrize(("size", "stop_at_eos"), [(1, True), (2, True), (3, True), (2, False)])
def test_no_sequence_of_tokens_comes_twice(size: int, stop_at_eos: bool) -> None:
    def may(ids: Sequence) -> bool:
        grams = [ids[start : start + size] for start in range(len(ids) - size + 1)]
        return len(set(grams)) == len(grams)

    stops = (lambda ids: ids[-1] == EOS) if stop_at_eos else (lambda ids: False)
    generated = all_possible(no_repeat_ngram=size, stop_at_eos=stop_at_eos)
    assert generated == pytest.approx(expected(may=may, stops=stops), abs=1e-9)


@pytest.mark.parametrize("strategy", [{"strategy": "greedy"}, {}, {"replacement": False, "samples": 30}, {"strategy": "beam"}], ids=str)
def test_where_nothing_may_come_next_a_generation_is_cut(strategy: dict[str, Any]) -> None:
    """Three tokens, none of which may come twice, and no end before the sixth: two of them in some order."""
    model = tiny(vocabulary=3)
    (generated,) = run(model, [(EOS,)], text=TEXT, no_repeat_ngram=1, min_tokens=6, max_tokens=9, **strategy)
    truth = {ids: total for ids, total in enumerate_all(model, (EOS,), 2).items() if len({*ids, EOS}) == 3}
    assert dict(as_pairs(generated)).items() <= {ids: pytest.approx(total) for ids, total in truth.items()}.items()
    assert not any(item.finished for item in generated) and len(generated) == {30: 2}.get(strategy.get("samples"), len(generated))


def contains(text: str, word: str) -> bool:
    """Whether a text contains a word with no letter or digit beside it."""
    before, behind = (r"(?<![^\W_])" if word[0].isalnum() else ""), (r"(?![^\W_])" if word[-1].isalnum() else "")
    return re.search(before + re.escape(word) + behind, text) is not None


@pytest.mark.parametrize("prompt", [(EOS,), (EOS, 1)])
@pytest.mark.parametrize("words", [["a"], ["ab"], ["a b"], ["aab", "b"], ["."], ["b."]])
def test_no_text_contains_a_banned_word(words: list[str], prompt: Sequence) -> None:
    """Exactly the sequences remain whose text, after the prompt's, contains none; their ln P is unchanged."""
    before = text(prompt[1:])
    truth = {ids: total for ids, total in expected(prompt).items() if not any(contains(before + text(ids), word) for word in words)}
    generated = all_possible(prompt, banned=words)
    assert generated == pytest.approx(truth, abs=1e-9)
    assert 0 < len(truth) < len(expected(prompt))


def test_words_of_one_token_that_nothing_makes_longer_are_banned_at_once() -> None:
    words = spelled_as(".", " the", " cat", " then")
    model = tiny(vocabulary=4)
    (generated,) = run(model, [(EOS,)], text=words, strategy="beam", beams=200, samples=200, max_tokens=3, banned=["the"])
    assert dict(as_pairs(generated)) == pytest.approx(enumerate_all(model, (EOS,), 3, may=lambda ids: ids[-1] != 1), abs=1e-9)


def test_characters_of_several_tokens() -> None:
    """The first part of a letter may turn out to be anything, and may not follow a word; a word can be spelled in parts."""
    spellings = [b"\n", b"a", b"\xc3", b"\xa9", b"\xc3\xa9", b" "]  # é in two parts, and whole
    banned = BannedWords(["a"], spellings, torch.device("cpu"))
    after_a = banned.next_state(banned.next_state(0, 0), 1)
    assert banned.forbidden(after_a, last=False).tolist() == [True, False, True, True, False, True]
    accented = BannedWords(["é"], spellings, torch.device("cpu"))
    assert accented.forbidden(accented.next_state(0, 2), last=True).tolist() == [False, False, False, True, True, False]


def test_a_stop_string_ends_a_generation_where_the_text_contains_it() -> None:
    for strings in (["b a"], ["aa", "."], [" "]):

        def stops(ids: Sequence, strings: list[str] = strings) -> bool:
            return ids[-1] == EOS or any(string in text(ids) for string in strings)

        assert all_possible(stop=strings) == pytest.approx(expected(stops=stops), abs=1e-9)


def test_it_does_not_before_the_fewest_tokens() -> None:
    def stops(ids: Sequence) -> bool:
        return len(ids) >= 3 and (ids[-1] == EOS or "aa" in text(ids))

    truth = expected(may=lambda ids: ids[-1] != EOS or len(ids) >= 3, stops=stops)
    assert all_possible(stop=["aa"], min_tokens=3) == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens = 9 is more than max_tokens = 8"),
        ({"stop": ["a", ""]}, "an empty string"),
        ({"banned": [" a"]}, "whitespace around it"),
        ({"typical_p": 0}, "typical_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"length_penalty": -1}, "length_penalty"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        config.resolve({"generate": settings})


def test_settings_without_effect_are_named() -> None:
    assert Generate().ignored == Generate(strategy="beam", samples=5).ignored == {}
    beam = Generate(strategy="beam", beams=2, samples=3, top_k=4, replacement=False)
    assert list(beam.ignored) == ["top_k", "replacement", "samples"]
    assert list(Generate(length_penalty=0.5, min_tokens=3, stop_at_eos=False).ignored) == ["length_penalty", "min_tokens"]
    assert Generate(stop="a b").stop == ("a b",) and Generate(stop="").stop == ()

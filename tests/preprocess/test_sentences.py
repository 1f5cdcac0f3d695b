"""Cutting into sentences loses nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.sentences import split

WORDS = ["Mr. ", "Go", ". ", "!", "? ", "é", "😀", "“Oh.” ", "...", "3.5 ", "e.g. ", "a"]
PIECES = st.sampled_from([*WORDS, "\n", "\n\n", "  ", "\u2028", "\x1c", "\xa0"])


@pytest.mark.parametrize("rule", ["line", "sentencex", "none"])
@given(text=st.text() | st.lists(PIECES).map("".join))
def test_sentences_and_gaps_are_the_text(rule, text):
    lead, found = split(text, rule)
    assert lead + "".join(sentence + gap for sentence, gap in found) == text
    assert all(sentence and sentence == sentence.strip() for sentence, _ in found)
    assert not lead.strip() and not any(gap.strip() for _, gap in found)


def test_rules_cut_where_they_say():
    text = " One. Two\nis. \n\n\nThree. "
    assert split(text, "line") == (" ", [("One. Two", "\n"), ("is.", " \n\n\n"), ("Three.", " ")])
    assert split(text, "none") == (" ", [("One. Two\nis. \n\n\nThree.", " ")])
    assert [sentence for sentence, _ in split(text, "sentencex")[1]] == ["One.", "Two\nis.", "Three."]
    assert split(" \n", "line") == (" \n", [])


def test_sentencex_knows_the_language():
    assert len(split("Das ist z. B. gut. Ja.", "sentencex", "de")[1]) == 2

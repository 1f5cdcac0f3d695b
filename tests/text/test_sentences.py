"""Cutting into sentences loses nothing, and is what Python's own string methods would do, character by character."""

import sys
from itertools import groupby, pairwise, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencex import get_sentence_boundaries

from packlm.text import sentences, whitespace
from packlm.text.document_block import DocumentBlock
from packlm.text.sentences import piece_starts, spans, split
from packlm.text.whitespace import edges_within, has_control, word_edges

SPACES = [chr(code) for code in range(sys.maxunicode) if chr(code).isspace()]
WORDS = ["Mr. ", "Go", ". ", "!", "? ", "é", "😀", "“Oh.” ", "...", "3.5 ", "e.g. ", "a", "\u180e", "\u200b", "あ", "\u0301", "\u2060"]
PIECES = st.sampled_from([*WORDS, *SPACES, "\n", "\n\n", "  "])
TEXT = st.text() | st.lists(PIECES).map("".join)
RULES = ["line", "sentencex", "none"]


def starts_of(text, rule):
    """Indices at which pieces of a document start: the slow way."""
    if rule == "line":
        return [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
    if rule == "sentencex":
        paragraphs = [0, *paragraph_starts(text), len(text)]
        return [start + index for start, end in pairwise(paragraphs) for index in starts_in_paragraph(text[start:end])]
    return [0]


def paragraph_starts(text):
    """Indices after whitespace with a blank line of any kind, or a paragraph separator."""
    starts, index = [], 0
    for is_space, run in groupby(text, str.isspace):
        run = "".join(run)
        index += len(run)
        line_ends = sum(run.replace("\r\n", "\n").count(end) for end in "\n\r\x85\u2028")
        if is_space and (line_ends > 1 or "\u2029" in run) and index < len(text):
            starts.append(index)
    return starts


def starts_in_paragraph(text):
    """Indices at which sentencex starts a sentence."""
    if text:
        try:
            return sorted({0, *(boundary["start_index"] for boundary in get_sentence_boundaries("en", text))})
        except BaseException:  # it panics on some white space
            plain = "".join(" " if character.isspace() and len(character.encode()) > 1 else character for character in text)
            return sorted({0, *(boundary["start_index"] for boundary in get_sentence_boundaries("en", plain))})
    return [0]


@pytest.mark.parametrize("break_", ["\n\n", "\n \n", "\r\n\t\r\n", "\r\r", "\u2029", "\u2028\u2028", "\x85\x85", "\n\u3000\n \n", " \r \n"])
def test_a_blank_line_of_any_kind_ends_a_paragraph(break_):
    text = f"A HEADING{break_}The text begins.{break_}It goes on, he said.{break_}"
    lead, found = split(text, "sentencex")
    assert [sentence for sentence, _ in found] == ["A HEADING", "The text begins.", "It goes on, he said."]
    assert lead + "".join(sentence + gap for sentence, gap in found) == text
    for end in ("\r\n", "\n", "\r", "\u2028"):  # a line end within a sentence ends nothing
        assert len(split(f"A line{end}and the next line.", "sentencex")[1]) == 1


def reference(documents, rule):
    """(start, end, document, words) of every sentence, in bytes from the first document on: the slow way."""
    found, base = [], 0
    for index, text in enumerate(documents):
        for start, end in pairwise([*starts_of(text, rule), len(text)]):
            sentence = text[start:end].strip()
            if sentence:
                at = text.index(sentence, start)
                first, last = len(text[:at].encode()), len(text[: at + len(sentence)].encode())
                words = len(sentence.split()) - (at > 0 and not text[at - 1].isspace())
                found.append((base + first, base + last, index, words))
        base += len(text.encode())
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("window", [1, 7, 1 << 18])
@settings(deadline=None)
@given(documents=st.lists(TEXT, max_size=5))
@example(documents=["", "a", "", "b c", " ", "d\n", "\n"])
@example(documents=["X\u2028. a"])
def test_spans_are_those_of_string_methods(rule, window, documents):
    whole, whitespace._WINDOW_BYTES = whitespace._WINDOW_BYTES, window
    try:
        texts = DocumentBlock.of((str(number), text) for number, text in enumerate(documents))
        pieces = piece_starts(texts, rule)
        found = spans(texts, pieces)
    finally:
        whitespace._WINDOW_BYTES = whole
    assert set(texts.starts[texts.starts < texts.ends]) <= set(pieces.tolist()) and (np.diff(pieces) > 0).all()
    assert [array.dtype.name for array in (pieces, *found)] == ["int64", "int64", "int64", "int32", "int32"]
    assert list(zip(*(array.tolist() for array in found), strict=True)) == reference(documents, rule)
    words = [int(found.words[found.documents == index].sum()) for index in range(len(documents))]
    assert words == [len(text.split()) for text in documents]


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None)
@given(text=TEXT)
def test_sentences_and_gaps_are_the_text(rule, text):
    lead, found = split(text, rule)
    assert lead + "".join(sentence + gap for sentence, gap in found) == text
    assert all(sentence and sentence == sentence.strip() for sentence, _ in found)
    assert not lead.strip() and not any(gap.strip() for _, gap in found)


def test_whitespace_is_that_of_python():
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = "".join(every)
    lengths = [len(character.encode()) for character in every]
    expected = np.repeat([character.isspace() for character in every], lengths)
    data = np.frombuffer(text.encode(), np.uint8)
    assert np.array_equal(word_edges(data), np.flatnonzero(np.diff(expected, prepend=True, append=True)))


@settings(deadline=None)
@given(text=TEXT, places=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_edges_within_a_part_are_those_of_the_part(text, places):
    start, end = (min(place, len(text)) for place in sorted(places))
    first, last = len(text[:start].encode()), len(text[:end].encode())
    data = np.frombuffer(text.encode(), np.uint8)
    assert edges_within(word_edges(data), first, last).tolist() == word_edges(data[first:last]).tolist()


def test_rules_cut_where_they_say():
    text = " One. Two\nis. \n\n\nThree. "
    assert split(text, "line") == (" ", [("One. Two", "\n"), ("is.", " \n\n\n"), ("Three.", " ")])
    assert split(text, "none") == (" ", [("One. Two\nis. \n\n\nThree.", " ")])
    assert [sentence for sentence, _ in split(text, "sentencex")[1]] == ["One.", "Two\nis.", "Three."]
    assert split(" \n", "line") == (" \n", [])


def test_sentencex_knows_the_language():
    assert len(split("Das ist z. B. gut. Ja.", "sentencex", "de")[1]) == 2


LINES = st.sampled_from(
    [
        "Mr. Go. ",
        "e.g. a",
        "He. ",
        "\n",
        "\n\n",
        "\n\n\n",
        "\n \n",
        "\r\n\r\n",
        "\r\n",
        "(a.) B",
        '"Oh!" ',
        "。",
        "あ。",
        "é",
        "A. B. ",
        "\t",
    ]
)


@settings(deadline=None, max_examples=300)
@given(text=st.lists(LINES, max_size=40).map("".join))
def test_a_document_given_to_sentencex_in_parts_is_cut_as_if_in_one(text):
    texts = DocumentBlock.of([("", text)])
    whole, sentences._PART_BYTES = sentences._PART_BYTES, 1
    try:
        parts = piece_starts(texts, "sentencex")
    finally:
        sentences._PART_BYTES = whole
    assert parts.tolist() == piece_starts(texts, "sentencex").tolist()
    assert [tuple(map(int, sentence)) for sentence in zip(*spans(texts, parts), strict=True)] == reference([text], "sentencex")


def test_control_characters_are_told_from_every_other_byte():
    control = {*range(0x09), *range(0x0E, 0x20), 0x7F}
    for byte, beside in product(range(256), (0x00, 0x08, 0x09, 0x0D, 0x0E, 0x1F, 0x20, 0x7E, 0x7F, 0x80, 0xFF)):
        assert has_control(np.array([byte, beside], np.uint8)) == bool({byte, beside} & control), (byte, beside)
    assert not has_control(np.empty(0, np.uint8))

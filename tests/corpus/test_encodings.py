"""The likely encoding of texts of many languages, and what must not be mistaken."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packlm.corpus import encodings

FRENCH = "Le café était fermé à l’heure où l’élève arriva. « Ça n’a pas d’importance », répondit-il, déçu. Où êtes-vous allés ?\n"
ENGLISH = "The bakery opens at six and closes at noon.\n" * 40 + "It didn’t open – the oven was “cold”.\n"
RUSSIAN = "Вчера вечером мы долго гуляли по берегу реки и говорили о старых книгах. Она сказала, что завтра будет дождь.\n"
JAPANESE = "昨日の夜、私たちは川のそばを長い間歩いて、古い本について話しました。彼女は笑って、明日は雨が降ると言いました。\n"
POLISH = "Wczoraj wieczorem długo spacerowaliśmy brzegiem rzeki i rozmawialiśmy o starych książkach. Żółte liście spadały wciąż.\n"
GREEK = "Χθες το βράδυ περπατήσαμε πολλή ώρα στην όχθη του ποταμού και μιλήσαμε για παλιά βιβλία.\n"
CHINESE = "昨天晚上我们沿着河边走了很久,谈论旧书。她笑着说,明天会下雨。\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "cp1252"), (FRENCH.replace("’", "'"), "latin-1"), (ENGLISH, "cp1252"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"),
        (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), (POLISH, "cp1250"), (POLISH, "iso8859-2"), (GREEK, "cp1253"), (CHINESE, "gb18030"),
        *[(text, f"utf-16{order}") for text in (FRENCH, ENGLISH, RUSSIAN, POLISH, GREEK) for order in ("", "-le", "-be")],
        (JAPANESE, "utf-16"), (RUSSIAN, "utf-32"),
        *[(text, "utf-8") for text in (FRENCH, ENGLISH, RUSSIAN, JAPANESE, POLISH, GREEK, CHINESE)],
        ("plain", "ascii"), ("", "ascii"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("repeats", [1, 30])
def test_a_text_is_read_as_it_was_written(text, encoding, repeats):
    data = (text * repeats).encode(encoding)
    for found in (
        encodings.likely(data),
        encodings.of_blocks([data]),
        encodings.of_blocks(data[at : at + 99] for at in range(0, len(data), 99)),
    ):
        assert data.decode(found).removeprefix("\ufeff") == text * repeats, found
        assert codecs.lookup(found).name == found


@pytest.mark.parametrize("text", ["un café", "He didn’t.", "naïve", "© 2020 Ångström", "Smörgåsbord på bryggan", "ein Fluß im Tal"])
def test_a_few_words_of_a_western_language_are_cp1252(text):
    assert text.encode("cp1252").decode(encodings.likely(text.encode("cp1252"))) == text


@pytest.mark.parametrize(("text", "encoding"), [(RUSSIAN, "cp866"), (JAPANESE, "euc_jp"), (CHINESE * 9, "gb18030"), (FRENCH * 9, "cp1252")])
def test_only_common_encodings_are_chosen(text, encoding):
    """Of those that spell the text in the same way, charset-normalizer prefers rarer ones (cp1125, EUC-JIS-2004)."""
    assert encodings.likely(text.encode(encoding)) == encoding


def test_bytes_that_cp1252_has_no_character_for_are_latin_1():
    assert encodings.likely("caf\xe9 \x81 et la for\xeat".encode("latin-1")) == "iso8859-1"


@pytest.mark.parametrize("text", [RUSSIAN, JAPANESE, FRENCH * 3])
def test_a_few_bad_bytes_do_not_make_utf8_another_encoding(text):
    """In another encoding all of the text would be garbled; so the bad bytes are reported, skipped or replaced as usual."""
    assert encodings.likely(text.encode() + b"\xff and \xe9t\xe9") == "utf-8"
    assert encodings.of_blocks([text.encode(), b"\xff\n"]) == "utf-8"


def test_of_a_long_text_the_lines_count_that_are_not_ascii():
    data = ("Plain words only.\n" * 20_000 + FRENCH).encode("cp1252")
    assert encodings.of_blocks(data[at : at + 4096] for at in range(0, len(data), 4096)) == "cp1252"
    assert encodings.of_blocks([b"a\n" * 9999, "é".encode()[:1]]) != "utf-8"  # the last character is cut short


@given(text=st.text(), cut=st.integers(1, 9))
def test_utf8_is_never_taken_for_another_encoding(text, cut):
    data = text.replace("\0", "").encode()
    assert encodings.of_blocks(data[at : at + cut] for at in range(0, len(data), cut)) == "utf-8"


@given(st.binary(max_size=300))
def test_any_bytes_have_an_answer(data):
    codecs.lookup(encodings.likely(data))
    codecs.lookup(encodings.of_blocks([data[:7], data[7:]]))

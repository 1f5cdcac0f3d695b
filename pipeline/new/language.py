"""The language of a text, by its script or by its most frequent words; empty where that is not certain."""

import re
from collections import Counter

_FUNCTION_WORDS = {
    "en": "the of and to in is that it was for",
    "de": "der die und das nicht ist den mit von zu",
    "fr": "le la les et des est une que dans pas",
    "es": "el la los y que en las una por con",
    "it": "il la che di non una gli per del sono",
    "pt": "o que não de uma os em para com do",
    "nl": "de het een van en niet dat zijn op te",
    "sv": "och att det som en på är inte för av",
    "da": "og at det er en på til ikke af jeg",
    "fi": "ja on ei se että oli hän mutta kun niin",
    "pl": "nie się na i w że z do jest to",
    "cs": "a se je na že to v s ne jsem",
    "ru": "и в не на что он с как я это",
    "uk": "і в не на що він з як я це",
}
"""By sentencex's codes, the ten most frequent words of languages that are often met."""
_SCRIPTS = {
    "el": "Ͱ-Ͽ", "hy": "Ա-֏", "he": "א-ת", "hi": "ऀ-ॿ", "bn": "ঀ-৿", "ta": "஀-௿", "te": "ఀ-౿", "th": "ก-๛", "ka": "ა-ჿ", "am": "ሀ-፿",
    "ja": "ぁ-ヿ", "ko": "가-힣", "zh": "一-鿿",
}  # fmt: skip
"""Languages that are nearly alone with their script; kana before Han characters, since Japanese has both."""
_SHARE = 0.1
"""Least share of the words that are among a language's ten; in running text it is a fifth to a third."""


def language(text: str) -> str:
    """The code of the language for sentencex; empty if it is none of those known here, or two of them are about as likely."""
    letters = sum(map(str.isalpha, text))
    for code, characters in _SCRIPTS.items():
        if letters and len(re.findall(f"[{characters}]", text)) >= (0.1 if code == "ja" else 0.5) * letters:
            return code
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    total = max(1, words.total())
    shares = {code: sum(words[word] for word in frequent.split()) / total for code, frequent in _FUNCTION_WORDS.items()}
    best, second = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
    return best if shares[best] >= _SHARE and shares[best] >= 1.5 * shares[second] else ""

"""Looks words up in the vocabulary of a word-level tokenizer, all at once. Shapes: K pre-tokens, V words."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from packlm.text.hash_table import HashTable
from packlm.text.pretokens import steps

SPACE = r"[\t-\r ]"
"""Whitespace that a pre-token may begin with, as a regular expression."""
_SPACES = "\t\n\v\f\r "
_WHITESPACE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"


@dataclass(frozen=True)
class WordLookup:
    """Finds the pre-tokens that are one word each; none, if a tokenizer does more than look words up.

    Words are in the order of their ids, which in tokenizers trained here is that of their frequency.
    """

    pattern: str
    """Regular expression of pre-tokens that are one word."""
    entries: pa.StringArray
    """[V] the words."""
    ids: np.ndarray
    """[V + 1] int64 id of each word, and of unknown words."""
    by_whitespace: bool
    """Whether everything between whitespace is a word."""

    @property
    def unknown(self) -> int:
        """The row of unknown words."""
        return len(self.ids)

    @cached_property
    def _table(self) -> HashTable:
        table = HashTable()
        table.add(self.entries)
        return table

    @staticmethod
    def none() -> "WordLookup":
        """A lookup that finds nothing."""
        return WordLookup("", pa.array([], pa.string()), np.empty(0, np.int64), False)

    @staticmethod
    def of(tokenizer: Tokenizer) -> "WordLookup":
        """The lookup of a tokenizer that `pretokens.unsafe_reason` passes."""
        kinds = [step["type"] for step in steps(tokenizer.pre_tokenizer)]
        characters = word_characters(kinds, normalized=False)
        if type(tokenizer.model).__name__ != "WordLevel" or tokenizer.normalizer is not None or characters is None:
            return WordLookup.none()
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        if (unknown := vocabulary.get(tokenizer.model.unk_token)) is None:
            return WordLookup.none()
        entries = sorted(vocabulary, key=vocabulary.__getitem__)
        ids = np.array([*map(vocabulary.__getitem__, entries), unknown], np.int64)
        return WordLookup(f"^{SPACE}?{characters}+$", pa.array(entries, pa.string()), ids, kinds == ["WhitespaceSplit"])

    def rows(self, values: pa.StringArray, are_words: bool) -> np.ndarray:
        """[K] int64: 1 + the index in `ids` of each word, -1 for anything else.

        Args:
            are_words: whether each value is known to be one run of non-whitespace after at most one whitespace byte.
        """
        indices = self._table.find(pc.ascii_ltrim(values, _SPACES))
        indices[indices < 0] = len(self.entries)
        if are_words and self.by_whitespace:
            return indices + 1
        is_word = pc.match_substring_regex(values, self.pattern).to_numpy(zero_copy_only=False).astype(bool)
        return np.where(is_word, indices + 1, -1)


def word_characters(kinds: list[str], normalized: bool) -> str | None:
    """Regular expression of characters whose runs are single words to pre-tokenizers of these kinds; None for other kinds.

    With a normalizer, or one that splits at punctuation, only runs of plain characters are certain to be single words.
    """
    if kinds == ["WhitespaceSplit"]:
        return "[!-~]" if normalized else f"[^{_WHITESPACE}]"
    return "[0-9A-Za-z]" if kinds in (["Whitespace"], ["BertPreTokenizer"]) else None

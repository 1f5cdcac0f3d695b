"""The cache of encoded pre-tokens: each distinct one is encoded by `tokenizers` once, as long as there is room to remember it.

Shapes: C pre-tokens and ends of sentences, K distinct pre-tokens, N ids, S sentences.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from packlm.text.hash_table import GrowingArray, HashTable
from packlm.text.joined_encoding import Encoded, encode, joined_encoder
from packlm.text.pretokens import PreTokens, gather
from packlm.text.word_lookup import WordLookup

_MAX_ENTRIES, _MAX_BYTES = 1 << 20, 1 << 24
_MAX_ENTRY_BYTES = 64  # longer pre-tokens hardly ever occur again
_MAX_FREQUENT = 1 << 14
_NON_SPACE_WHITESPACE = np.zeros(256, bool)
_NON_SPACE_WHITESPACE[list(b"\t\n\v\f\r")] = True


class EncodingCache:
    """Turns pre-tokens into ids; what it remembers affects speed only.

    A *row* is an index of the cached encodings. Row 0 is the end of a sentence, whose id is `<eos>`; then come the words of `WordLookup`,
    whose encodings are in the vocabulary; then the pre-tokens that were encoded. Looked up first, in a small table that fits in the CPU
    cache, are the *frequent* ones: most pre-tokens of a text are among its 16,384 most frequent ones.
    """

    def __init__(self, tokenizer: Tokenizer, eos: int, clean: Callable[[np.ndarray], np.ndarray], dtype: "np.dtype", is_split: bool):
        """
        Args:
            clean: applied to all ids of text.
            dtype: type of the ids.
            is_split: whether pre-tokens are those of `pretokens.split`, rather than whole sentences.
        """
        self._encode = joined_encoder(tokenizer) if is_split else lambda texts: encode(tokenizer, texts)
        self._words = WordLookup.of(tokenizer) if is_split else WordLookup.none()
        self._eos, self._clean, self._dtype = eos, clean, dtype
        self.clear()

    _frequent: pa.StringArray
    """[F] the pre-tokens to look up first; the first is null, for the end of a sentence."""
    _frequent_rows: np.ndarray
    """[F] int64: their rows."""
    _all_words_frequent: bool
    """Whether every word of the vocabulary is frequent, both at the beginning of a sentence and after a space."""

    def __len__(self) -> int:
        """Number of pre-tokens that are remembered."""
        return len(self._entries)

    def ids(self, pre_tokens: PreTokens) -> Encoded:
        """([N] ids of all sentences, `<eos>` after each; [S] int64 number of ids of each sentence)."""
        if len(self._entries) > _MAX_ENTRIES or self._entries.num_bytes > _MAX_BYTES:
            self.clear()
        frequent, others = self._find_frequent(pre_tokens)
        rows, frequent_rows = self._find_words(pre_tokens, others), self._frequent_rows
        ids, lengths = self._ids.values, self._lengths.values
        if (unresolved := np.flatnonzero(rows < 0)).size:
            values = pre_tokens.values.take(pa.array(others[unresolved]))
            rows[unresolved], ids, lengths = self._find_or_encode(values)
            if 2 * len(unresolved) > len(frequent):
                self._choose_frequent(np.delete(frequent, others), values, rows[unresolved])
        if (lengths == 1).all():
            flat = ids[frequent_rows][frequent]
            flat[others] = ids[rows]
            return flat, np.diff(pre_tokens.ends, prepend=0)
        all_rows = frequent_rows[frequent]
        all_rows[others] = rows
        counts = lengths[all_rows]
        ends = np.cumsum(counts)[pre_tokens.ends - 1]
        return gather(ids, (np.cumsum(lengths) - lengths)[all_rows], counts), np.diff(ends, prepend=0)

    def clear(self) -> None:
        """Forgets all pre-tokens that were encoded."""
        self._entries = HashTable()
        self._ids = GrowingArray(np.append(self._eos, self._clean(self._words.ids.copy())).astype(self._dtype))
        self._first_entry = len(self._ids.values)
        self._lengths = GrowingArray(np.ones(self._first_entry, np.int64))
        words = self._words.entries[:_MAX_FREQUENT]
        words = pa.concat_arrays([pc.binary_join_element_wise(" ", words, ""), words])
        rows = self._words.rows(words, False)
        self._frequent = pa.concat_arrays([pa.array([None], pa.string()), words.filter(pa.array(rows > 0))])
        self._frequent_rows = np.append(0, rows[rows > 0])
        self._all_words_frequent = self._words.by_whitespace and len(self._words.entries) <= _MAX_FREQUENT

    def _find_frequent(self, pre_tokens: PreTokens) -> tuple[np.ndarray, np.ndarray]:
        """([C] int32 index of each pre-token in `_frequent`, 0 for ends and those that are not frequent; indices of the latter)."""
        matches = pc.index_in(pre_tokens.values, value_set=self._frequent)
        known = np.ones(len(matches), np.uint8)
        if matches.null_count:
            known = np.unpackbits(np.frombuffer(matches.buffers()[0], np.uint8), count=len(matches), bitorder="little")
        known[pre_tokens.ends - 1] = 1
        others = np.flatnonzero(known == 0)
        indices = np.frombuffer(matches.buffers()[1], np.int32)[: len(matches)].copy()
        indices[pre_tokens.ends - 1] = indices[others] = 0
        return indices, others

    def _find_words(self, pre_tokens: PreTokens, others: np.ndarray) -> np.ndarray:
        """int64 rows of the pre-tokens at indices `others`, none of them frequent, that are one word each; -1 for the rest."""
        rows = np.full(len(others), -1)
        if not len(self._words.ids) or not len(others):
            return rows
        candidates = np.arange(len(others))
        if self._all_words_frequent and pre_tokens.are_words:
            # A word of the vocabulary would be frequent, unless it follows a tab or a line end.
            rows[:] = self._words.unknown
            candidates = np.flatnonzero(_NON_SPACE_WHITESPACE[pre_tokens.first_bytes(others)])
        if len(candidates):
            rows[candidates] = self._words.rows(pre_tokens.values.take(pa.array(others[candidates])), pre_tokens.are_words)
        return rows

    def _find_or_encode(self, values: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(int64 rows of pre-tokens; ids and lengths of all rows, which until the next call include those too long to be remembered)."""
        rows = self._entries.find(values)
        missing = np.flatnonzero(rows < 0)
        rows += self._first_entry
        new = values.take(pa.array(missing)).dictionary_encode()
        is_long = pc.greater(pc.binary_length(new.dictionary), _MAX_ENTRY_BYTES)
        short, long = new.dictionary.filter(pc.invert(is_long)), new.dictionary.filter(is_long)
        first = len(self._lengths.values)
        encoded = [self._encode_clean(texts.to_pylist()) for texts in (short, long)]
        self._entries.add(short)
        for ids, lengths in encoded:
            self._ids.add(ids)
            self._lengths.add(lengths)
        order = np.argsort(np.argsort(is_long.to_numpy(zero_copy_only=False), kind="stable"))  # long ones after all short ones
        rows[missing] = first + order[new.indices.to_numpy()]
        all_ids, all_lengths = self._ids.values, self._lengths.values
        self._ids.drop(len(ids))
        self._lengths.drop(len(lengths))
        return rows, all_ids, all_lengths

    def _encode_clean(self, texts: list[str]) -> Encoded:
        ids, lengths = self._encode(texts)
        return self._clean(ids).astype(self._dtype), lengths

    def _choose_frequent(self, indices: np.ndarray, others: pa.StringArray, rows: np.ndarray) -> None:
        """Chooses the frequent pre-tokens anew: those that occur most often in the text at hand.

        Args:
            indices: index in `_frequent` of each pre-token of the text that is frequent now.
            others, rows: the other pre-tokens of the text, and their rows.
        """
        distinct = others.dictionary_encode()
        codes, values = distinct.indices.to_numpy(), distinct.dictionary
        texts = pa.concat_arrays([self._frequent, values])
        counts = np.concatenate([np.bincount(indices, minlength=len(self._frequent)), np.bincount(codes, minlength=len(values))])
        distinct_rows = np.empty(len(values), np.int64)
        distinct_rows[codes] = rows
        all_rows = np.concatenate([self._frequent_rows, distinct_rows])
        counts[all_rows >= len(self._lengths.values)] = 0  # not remembered
        best = np.argsort(-counts[1:], kind="stable")[:_MAX_FREQUENT] + 1
        best = np.append(0, best[counts[best] > 0])
        self._frequent = texts.take(pa.array(best))
        self._frequent_rows = all_rows[best]
        self._all_words_frequent = False

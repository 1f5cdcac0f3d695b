"""Words: what stands between whitespace, or runs of letters and of punctuation (`tokenizer.words`), by frequency."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, models, pre_tokenizers

from packlm import config
from packlm.dataset import EOS, UNK
from packlm.text.tokenizer_kind import WHITESPACE, TokenizerKind, normalize

# Pre-tokens that are one word after at most one whitespace byte. Other words with non-ASCII letters or punctuation are left to the
# pre-tokenizer.
_ONE_WORD = {"space": f"^[\\t-\\r ]?[^{WHITESPACE}]+$", "punctuation": r"^[\t-\r ]?[0-9A-Z_a-z]+$"}


class Word(TokenizerKind):
    """A word-level vocabulary: `<eos>`, `<unk>`, then the most frequent entries. A spelled `<unk>` is the unknown word."""

    settings: tuple[str, ...] = ("vocab_size", "min_count", "words", "lowercase", "normal_form")
    minimum = (3, "two special tokens and a word")
    default_min_count = 2

    def default_vocab_size(self, train_bytes: int | None) -> int | None:
        return 50_000

    def pre_tokenizer(self, settings: config.Tokenizer) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.WhitespaceSplit() if settings.words == "space" else pre_tokenizers.Whitespace()

    def entries(self, settings: config.Tokenizer, pre_tokens: pa.StringArray, counts: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        values = normalize(self.normalizer(settings), pre_tokens)
        one_word = pc.match_substring_regex(values, _ONE_WORD[settings.words])
        mask = one_word.to_numpy(zero_copy_only=False)
        split = self.pre_tokenizer(settings).pre_tokenize_str
        others = [[word for word, _ in split(value)] for value in values.filter(pc.invert(one_word)).to_pylist()]
        lengths = np.fromiter(map(len, others), np.int64, len(others))
        flat = pa.array([word for words in others for word in words], pa.string())
        words = pa.concat_arrays([pc.utf8_ltrim(values.filter(one_word), "\t\n\v\f\r "), flat])
        counts = np.concatenate([counts[mask], np.repeat(counts[~mask], lengths)])
        ordinary = pc.invert(pc.is_in(words, pa.array([EOS, UNK])))
        return words.filter(ordinary), counts[ordinary.to_numpy(zero_copy_only=False)]

    def train(self, settings: config.Tokenizer, entries: Sequence[tuple[str, int]], total: int) -> Tokenizer:
        assert settings.min_count is not None
        frequent = [entry for entry, count in entries if count >= settings.min_count]
        # Not WordLevelTrainer: it gives a spelled <unk>, as in Penn Treebank, a second entry.
        vocabulary = {entry: index for index, entry in enumerate([EOS, UNK, *frequent][: settings.vocab_size])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
        if normalizer := self.normalizer(settings):
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = self.pre_tokenizer(settings)
        tokenizer.add_special_tokens([EOS, UNK])
        return tokenizer


KINDS = {"word": Word()}

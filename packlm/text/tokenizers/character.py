"""Characters: Unicode code points, by frequency."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from packlm import config
from packlm.text.tokenizer_kind import normalize
from packlm.text.tokenizers.word import Word

NUM_CODE_POINTS = 0x110000


class Character(Word):
    """A vocabulary of code points, otherwise like that of words."""

    settings = ("vocab_size", "min_count", "lowercase", "normal_form")
    minimum = (3, "two special tokens and a character")
    default_min_count = 1

    def default_vocab_size(self, train_bytes: int | None) -> int | None:
        return NUM_CODE_POINTS + 2

    def pre_tokenizer(self, settings: config.Tokenizer) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")

    def entries(self, settings: config.Tokenizer, pre_tokens: pa.StringArray, counts: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        values = normalize(self.normalizer(settings), pre_tokens)
        code_points = np.frombuffer("".join(values.to_pylist()).encode("utf-32-le"), np.uint32)
        totals = np.zeros(NUM_CODE_POINTS, np.int64)
        np.add.at(totals, code_points, np.repeat(counts, pc.utf8_length(values).to_numpy()))
        present = np.flatnonzero(totals)
        return pa.array(map(chr, present.tolist()), pa.string()), totals[present]

    def train(self, settings: config.Tokenizer, entries: Sequence[tuple[str, int]], total: int) -> Tokenizer:
        tokenizer = super().train(settings, entries, total)
        tokenizer.decoder = decoders.Fuse()
        return tokenizer


KINDS = {"character": Character()}

"""The interface of a kind of tokenizer. Shapes: P distinct pre-tokens (see `packlm.text.pretokens`)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from packlm import config

WHITESPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Whitespace of the pre-tokenizers (Unicode's White_Space), for a regular expression; `str.split` knows four control characters more."""

_NORMAL_FORMS = {"nfc": normalizers.NFC, "nfd": normalizers.NFD, "nfkc": normalizers.NFKC, "nfkd": normalizers.NFKD}
_SEPARATOR = "\x00"


class TokenizerKind:
    """How tokenizers of one kind are made; without state.

    A kind that is trained implements `pre_tokenizer`, `entries` and `train`; one that is read from a file implements `pretrained`.
    """

    settings: tuple[str, ...] = ()
    """The settings of `tokenizer.*` that it uses, besides `kind` and `file`."""
    minimum: tuple[int, str] = (1, "a token")
    """The least vocabulary size, and why."""
    default_min_count = 1
    """The value of `tokenizer.min_count` where it is not set."""
    sampled = False
    """Whether it is trained on a sample of about `tokenizer.sample_bytes` of text, rather than on all."""

    def pretrained(self, settings: config.Tokenizer) -> str | None:
        """The JSON of the tokenizer that `settings.file` names, fitted to the dataset's contract; None for kinds that are trained.

        Raises:
            RequestError: no such file, not a tokenizer, or one that cannot be fitted.
        """
        return None

    def default_vocab_size(self, train_bytes: int | None) -> int | None:
        """The default of `tokenizer.vocab_size`; None if it depends on the size of the training split and that is unknown.

        Args:
            train_bytes: UTF-8 bytes of the training split, if known.
        """
        return None

    def resolve(self, settings: config.Tokenizer, train_bytes: int | None = None) -> config.Tokenizer:
        """The settings with the defaults of this kind in place of None; `train_bytes` as in `default_vocab_size`."""
        defaults = {"vocab_size": self.default_vocab_size(train_bytes), "min_count": self.default_min_count}
        return settings.model_copy(update={name: value for name, value in defaults.items() if getattr(settings, name) is None})

    def normalizer(self, settings: config.Tokenizer) -> normalizers.Normalizer | None:
        """The first step of encoding: the normal form, then lower case; None if neither is set."""
        steps = [_NORMAL_FORMS[settings.normal_form]()] if settings.normal_form != "none" else []
        if settings.lowercase:
            steps.append(normalizers.Lowercase())
        return normalizers.Sequence(steps) if len(steps) > 1 else next(iter(steps), None)

    def pre_tokenizer(self, settings: config.Tokenizer) -> pre_tokenizers.PreTokenizer:
        """The second step of encoding: splits normalized text."""
        raise NotImplementedError

    def entries(self, settings: config.Tokenizer, pre_tokens: pa.StringArray, counts: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """The strings that `train` needs counted, in [P] pre-tokens that occur `counts` [P] times each, and their counts; may repeat."""
        raise NotImplementedError

    def priorities(self, entries: pa.BinaryArray, counts: np.ndarray) -> np.ndarray:
        """[P] float64: which entries `train` uses if there are too many, those of the highest priority; here the most frequent."""
        return counts.astype(np.float64)

    def num_entries(self, settings: config.Tokenizer) -> int:
        """How many entries, of the highest priority, `train` uses at most."""
        assert settings.vocab_size is not None
        return settings.vocab_size

    def train(self, settings: config.Tokenizer, entries: Sequence[tuple[str, int]], total: int) -> Tokenizer:
        """Makes a tokenizer from counts; the same counts give the same tokenizer.

        Args:
            settings: with the defaults of the kind (`resolve`).
            entries: the entries of the highest priority and their counts, highest first.
            total: sum of the counts of all entries, including those not in `entries`.
        """
        raise NotImplementedError


def normalize(normalizer: normalizers.Normalizer | None, values: pa.StringArray) -> pa.StringArray:
    """Normalizes each string; all in one call, unless one contains the separator, which composes with nothing."""
    if normalizer is None:
        return values
    texts = values.to_pylist()
    normalized: list[str] = normalizer.normalize_str(_SEPARATOR.join(texts)).split(_SEPARATOR)
    if len(normalized) != len(texts):
        normalized = [normalizer.normalize_str(text) for text in texts]
    return pa.array(normalized, pa.string())

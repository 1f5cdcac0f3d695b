"""Byte-level byte-pair encoding, trained on the counts of pre-tokens in a sample of documents."""

import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from packlm import config
from packlm.dataset import EOS
from packlm.text.tokenizer_kind import WHITESPACE, TokenizerKind

log = logging.getLogger("packlm")

PRE_TOKEN = re.compile(f"[{WHITESPACE}]*[^{WHITESPACE}]+|[{WHITESPACE}]+")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
"""The characters that stand for the 256 bytes."""

_AFTER_SPACE = re.compile(f"[{WHITESPACE}]+[^{WHITESPACE}]")
# The trainer needs some two kilobytes for every distinct pre-token and 70 for each of its bytes: with these limits, less than a gigabyte.
MAX_PRE_TOKENS, _MAX_BYTES = 1 << 18, 1 << 22
# Its time grows with the square of a pre-token's length: 54 s for one of 300,000 characters, as a file that is no text may hold.
_LONGEST = 1 << 12
_LONG_BYTES = 64  # longer pre-tokens hardly ever occur again as a whole
_FEED_BYTES = 1 << 16  # of a repeated pre-token, given to the trainer at a time


def default_vocab_size(train_bytes: int) -> int:
    """The size of a vocabulary for a training split of so much text: it grows with the root of the text, as the types of a text do.

    1,000 for 100 kB, 3,200 for 1 MB, 10,000 for 10 MB; at least 500, at most 16,000; whole hundreds. A larger vocabulary has tokens that
    are too rare to be learned, a smaller one makes sequences longer.
    """
    return min(max(100 * round((train_bytes / 1000) ** 0.5), 500), 16_000)


class ByteLevelBpe(TokenizerKind):
    """Byte-level BPE with `<eos>` and all 256 bytes in its vocabulary: nothing is unknown, decoding is lossless."""

    settings = ("vocab_size", "lowercase", "normal_form", "sample_bytes")
    minimum = (257, f"{EOS} and 256 bytes")
    sampled = True

    def default_vocab_size(self, train_bytes: int | None) -> int | None:
        return None if train_bytes is None else default_vocab_size(train_bytes)

    def pre_tokenizer(self, settings: config.Tokenizer) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)

    def entries(self, settings: config.Tokenizer, pre_tokens: pa.StringArray, counts: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """Pre-tokens; long ones, such as lines of a script without spaces, in the pieces into which the tokenizer splits them."""
        if self.normalizer(settings):
            return pre_tokens, counts
        is_long = pc.greater(pc.binary_length(pre_tokens), _LONG_BYTES)
        mask = is_long.to_numpy(zero_copy_only=False)
        if not mask.any():
            return pre_tokens, counts
        split = self.pre_tokenizer(settings).pre_tokenize_str
        pieces = [[text[start:end] for _, (start, end) in split(text)] for text in pre_tokens.filter(is_long).to_pylist()]
        flat = pa.array([piece for of_one in pieces for piece in of_one], pa.string())
        repeated = np.repeat(counts[mask], np.fromiter(map(len, pieces), np.int64, len(pieces)))
        return pa.concat_arrays([pre_tokens.filter(pc.invert(is_long)), flat]), np.concatenate([counts[~mask], repeated])

    def priorities(self, entries: pa.BinaryArray, counts: np.ndarray) -> np.ndarray:
        """Priority sampling (Duffield, Lund and Thorup 2007): count / u, u uniform in (0, 1] by a hash of the entry.

        Of the entries with more than the first priority that is left out, t, all are in the sample; of those with fewer, some, each of
        which stands for t occurrences. So every part of a text has its share, also one whose entries all occur once, as lines without
        spaces do.
        """
        return counts / _uniform(entries.to_pylist())

    def num_entries(self, settings: config.Tokenizer) -> int:
        return MAX_PRE_TOKENS + 1  # the priority of the last one is that of the first one left out

    def train(self, settings: config.Tokenizer, entries: Sequence[tuple[str, int]], total: int) -> Tokenizer:
        entries = [(piece, count) for pre_token, count in entries for piece in _pieces(pre_token)]
        entries, least = self._sample(entries)
        used = sum(count for _, count in entries)
        if used < total:
            log.info("bpe learns from a sample of %s words, %.1f%% of the text", f"{len(entries):,}", 100 * used / total)
        assert settings.vocab_size is not None
        tokenizer = Tokenizer(models.BPE())
        tokenizer.decoder = decoders.ByteLevel()
        if normalizer := self.normalizer(settings):
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = self.pre_tokenizer(settings)
        trainer = trainers.BpeTrainer(
            # A pair of bytes is in two words of the sample, at least.
            vocab_size=settings.vocab_size,
            min_frequency=2 * least,
            special_tokens=[EOS],
            initial_alphabet=ALPHABET,
            show_progress=False,
        )
        tokenizer.train_from_iterator(_repeated([(entry, max(count, least)) for entry, count in entries]), trainer)
        return tokenizer

    def _sample(self, entries: Sequence[tuple[str, int]]) -> tuple[Sequence[tuple[str, int]], int]:
        """(the entries of the highest priority that the limits allow; the number of occurrences that each stands for at least)."""
        texts = [text.encode() for text, _ in entries]
        if len(texts) <= MAX_PRE_TOKENS and sum(map(len, texts)) <= _MAX_BYTES:
            return entries, 1
        priorities = self.priorities(pa.array(texts, pa.binary()), np.array([count for _, count in entries], np.int64))
        order = np.argsort(-priorities, kind="stable")
        sizes = np.cumsum([len(texts[index]) for index in order[:MAX_PRE_TOKENS]])
        num_used = int(np.searchsorted(sizes, _MAX_BYTES, side="right"))
        return [entries[index] for index in order[:num_used]], max(1, round(float(priorities[order[num_used]])))


def _pieces(pre_token: str) -> Iterator[str]:
    """A pre-token in pieces of at most `_LONGEST` characters."""
    for start in range(0, len(pre_token), _LONGEST):
        yield pre_token[start : start + _LONGEST]


def _repeated(entries: Sequence[tuple[str, int]]) -> Iterator[str | list[str]]:
    """Texts, or lists of them, in which each pre-token occurs as often as its count says, split from the next one as in its sentence."""
    for pre_token, count in entries:
        repetitions = min(count, max(1, _FEED_BYTES // len(pre_token)))
        # The pre-tokenizer always splits between a word and the whitespace before the next one; other repetitions could run together.
        together = bool(_AFTER_SPACE.match(pre_token))
        for number in [*repeat(repetitions, count // repetitions), count % repetitions]:
            if number:
                yield pre_token * number if together else [pre_token] * number


def in_sample(names: Sequence[str] | pa.StringArray, share: float) -> np.ndarray:
    """[D] bool: which documents belong to a sample of about `share` of all documents; all of them from 1 on.

    Decided for each document by a hash of its name, so a larger share only adds documents.
    """
    if share >= 1:
        return np.ones(len(names), bool)
    return _hashes(pa.array(names, pa.string()).cast(pa.binary()).to_pylist()) < np.uint64(share * 2**64)


def _uniform(values: Sequence[bytes]) -> np.ndarray:
    """[D] float64: uniform numbers in (0, 1], each a hash of a value."""
    return (_hashes(values).astype(np.float64) + 1) / 2**64


def _hashes(values: Sequence[bytes]) -> np.ndarray:
    """[D] uint64: the CRC-32 of each value, mixed by the finalizer of SplitMix64 (Steele et al., 2014) to uniform 64-bit hashes."""
    hashes = np.fromiter(map(zlib.crc32, values), np.uint64, len(values))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


KINDS = {"bpe": ByteLevelBpe()}

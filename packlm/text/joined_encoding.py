"""Encodes many short texts in few calls: joined by separators where their ids can be told apart again. Shapes: N ids, K texts."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from packlm.text.pretokens import gather, steps
from packlm.text.tokenizer_json import named_panic
from packlm.text.word_lookup import SPACE, word_characters

_BATCH_CHARACTERS = 1 << 19  # encoded at a time; what tokenizers returns takes some hundred bytes a token
_JOINED_TEXTS = 256
_LETTER = r"[!-~\p{L}]"

Encoded = tuple[np.ndarray, np.ndarray]
"""([N] ids end to end; [K] int64 number of ids of each text)."""


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    """The ids, int64, of texts that are encoded one by one."""
    runs, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in _batches(texts):
        with named_panic():
            encodings = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
        runs.append(np.fromiter(chain.from_iterable(encodings), np.int64, int(lengths[-1].sum())))
    return np.concatenate(runs), np.concatenate(lengths)


def joined_encoder(tokenizer: Tokenizer) -> Callable[[list[str]], Encoded]:
    """`encode` for pre-tokens, for a tokenizer that `pretokens.unsafe_reason` passes.

    A call costs far more than encoding the few characters of a pre-token, so some hundred are encoded as one text where it is certain
    how to separate their ids.
    """
    model, kinds = type(tokenizer.model).__name__, [step["type"] for step in steps(tokenizer.pre_tokenizer)]
    if model == "BPE" and kinds == ["ByteLevel"]:
        # A line feed between two non-whitespace characters (or one that the second character's word begins with) is a token by itself,
        # and no other token contains one.
        line_feed = tokenizer.encode("\n", add_special_tokens=False).ids
        pattern = rf"^[\t\x0b-\r ]?{_LETTER}([^\n]*{_LETTER})?$"

        def separate(ids: np.ndarray, count: int) -> Encoded | None:
            separators = np.flatnonzero(ids == line_feed[0])
            lengths = np.diff(separators, prepend=-1, append=len(ids)) - 1
            return (np.delete(ids, separators), lengths) if len(lengths) == count else None

        if len(line_feed) == 1:
            return lambda texts: _encode_joined(tokenizer, texts, pattern, "\n", separate)
    elif model == "WordLevel" and (characters := word_characters(kinds, tokenizer.normalizer is not None)):

        def one_id_each(ids: np.ndarray, count: int) -> Encoded | None:
            return (ids, np.ones(count, np.int64)) if len(ids) == count else None

        return lambda texts: _encode_joined(tokenizer, texts, f"^{SPACE}?{characters}+$", " ", one_id_each)
    return lambda texts: encode(tokenizer, texts)


def _encode_joined(
    tokenizer: Tokenizer, texts: list[str], pattern: str, separator: str, separate: Callable[[np.ndarray, int], Encoded | None]
) -> Encoded:
    """Encodes texts that match `pattern` in joined groups, and those whose ids cannot be separated, and all others, one by one."""
    joinable = np.flatnonzero(pc.match_substring_regex(pa.array(texts, pa.string()), pattern).to_numpy(zero_copy_only=False))
    groups = np.split(joinable, range(_JOINED_TEXTS, len(joinable), _JOINED_TEXTS))
    ids, lengths = encode(tokenizer, [separator.join([texts[index] for index in group]) for group in groups])
    results: list[tuple[np.ndarray, Encoded]] = []
    for group, (start, end) in zip(groups, pairwise([0, *np.cumsum(lengths).tolist()]), strict=True):
        if len(group) and (encoded := separate(ids[start:end], len(group))) is not None:
            results.append((group, encoded))
    done = np.zeros(len(texts), bool)
    for group, _ in results:
        done[group] = True
    rest = np.flatnonzero(~done)
    results.append((rest, encode(tokenizer, [texts[index] for index in rest])))
    order = np.argsort(np.concatenate([group for group, _ in results]))
    ids, lengths = (np.concatenate([encoded[part] for _, encoded in results]) for part in (0, 1))
    return gather(ids, (np.cumsum(lengths) - lengths)[order], lengths[order]), lengths[order]


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of about `_BATCH_CHARACTERS` together, at least one each."""
    start = size = 0
    for index, text in enumerate(texts):
        if index > start and size + len(text) > _BATCH_CHARACTERS:
            yield texts[start:index]
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]

"""Splits sentences into pre-tokens, which no token spans, so that each distinct one needs to be encoded or counted only once.

A pre-token begins at the beginning of a sentence, or at the ASCII whitespace byte (tab to carriage return, or space) before a character
that is not whitespace. Every pre-tokenizer that `unsafe_reason` passes ends a token there: those that split at whitespace do so anyway,
and of a run of whitespace the expression of byte-level pre-tokenizers (`\\s+(?!\\S)`) leaves the last character to the word that follows,
whether that word is there or the text ends. So the ids of a sentence are those of its pre-tokens, end to end.

With a normalizer, pre-tokens begin only before ASCII letters, digits and punctuation, which combine with nothing before them.

Shapes: B bytes, S sentences, C pre-tokens and ends of sentences.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from packlm.text.whitespace import edges_within, has_control, next_character, word_edges

SLICE_BYTES = 1 << 23
"""Text processed at a time: bounds memory, affects nothing else."""

_NORMALIZERS = ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents")
_WHITESPACE_SPLITTERS = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")
_WITHIN_WORDS = (*_WHITESPACE_SPLITTERS, "ByteLevel", "Digits", "Punctuation", "Split")
_MODELS = ("BPE", "WordLevel", "WordPiece", "Unigram")


class PreTokens(NamedTuple):
    """The pre-tokens of some sentences, with an entry for the end of each sentence."""

    values: pa.StringArray
    """[C] for each sentence its pre-tokens, which joined are the sentence, then the text up to the next one, which stands for its end."""
    ends: np.ndarray
    """[S] int64: index in `values` after the end of each sentence."""
    are_words: bool
    """Whether every pre-token is known to be one word after at most one whitespace byte."""

    def first_bytes(self, indices: np.ndarray) -> np.ndarray:
        """uint8: the first bytes of some pre-tokens, none of them empty."""
        _, offsets, text = self.values.buffers()
        return np.frombuffer(text, np.uint8)[np.frombuffer(offsets, np.int32)[indices]]


def unsafe_reason(tokenizer: Tokenizer) -> str | None:
    """Why the ids of a text may differ from those of its pre-tokens; None if they do not."""
    added = tokenizer.get_added_tokens_decoder().values()
    if any(not token.special for token in added) or (added and not tokenizer.encode_special_tokens):
        return "it has added tokens, which are matched anywhere in text"
    if tokenizer.truncation or tokenizer.padding:
        return "it truncates or pads"
    for step in steps(tokenizer.normalizer):
        if step["type"] not in _NORMALIZERS:
            return f"its normalizer has a step {step['type']}"
    model = type(tokenizer.model).__name__
    if model not in _MODELS:
        return f"its model is {model}"
    if getattr(tokenizer.model, "dropout", None):
        return "its merges are random (dropout)"
    first, *others = steps(tokenizer.pre_tokenizer) or [{"type": "nothing"}]
    if first["type"] in _WHITESPACE_SPLITTERS:
        crossing = [step["type"] for step in others if step["type"] not in _WITHIN_WORDS]
        return f"its pre-tokenizer has a step {crossing[0]}" if crossing else None
    if not others and (_is_byte_level(first) or _is_character_split(first)):
        return None
    return f"its pre-tokenizer begins with {first['type']}" + (f", followed by {others[0]['type']}" if others else "")


def steps(component: Normalizer | PreTokenizer | None) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as in its JSON, with nested sequences flattened."""
    return [] if component is None else _flatten(json.loads(component.__getstate__()))


def split(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool, edges: np.ndarray | None = None) -> PreTokens:
    """Splits sentences into pre-tokens.

    Args:
        data: [B] uint8, UTF-8 text.
        starts, ends: [S] of sentences in it, ascending; text between them is skipped.
        normalized: whether the tokenizer has a normalizer.
        edges: `word_edges` of the text, if known.
    """
    base, stop = int(starts[0]), int(ends[-1])
    text, starts, ends = data[base:stop], (starts - base).astype(np.int32), (ends - base).astype(np.int32)
    edges = word_edges(text) if edges is None else edges_within(edges, base, stop)
    openings = _openings(text, edges, normalized)
    first = np.searchsorted(openings, starts, "right")
    last = np.maximum(np.searchsorted(openings, ends - 1), first)
    inside = np.repeat(np.arange(2 * len(starts) + 1) % 2 == 1, np.diff(np.stack([first, last], 1).flat, prepend=0, append=len(openings)))
    after = np.cumsum(last - first + 1 + (starts < ends))
    offsets = np.empty(int(after[-1]) + 1, np.int32)
    is_opening = np.ones(len(offsets), bool)
    firsts = np.concatenate([[0], after[:-1]])
    is_opening[firsts] = is_opening[after - 1] = is_opening[-1] = False
    offsets[is_opening] = openings[inside]
    offsets[firsts], offsets[after - 1], offsets[-1] = starts, ends, ends[-1]
    return PreTokens(_strings(text, offsets), after, _are_words(edges, starts, ends, first, last, inside))


def whole_sentences(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> PreTokens:
    """Each sentence as one pre-token, for tokenizers with an `unsafe_reason`. Arguments as for `split`."""
    offsets = np.append(np.stack([starts, ends], axis=1).reshape(-1), ends[-1]) - starts[0]
    return PreTokens(_strings(data[starts[0] : ends[-1]], offsets.astype(np.int32)), 2 * np.arange(1, len(starts) + 1), False)


def counts(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool, edges: np.ndarray | None = None
) -> Iterator[tuple[pa.StringArray, np.ndarray]]:
    """The distinct pre-tokens of sentences and how often each occurs (int64), for one slice of the text after another.

    Arguments as for `split`. The same word with and without whitespace before it counts as two.
    """
    starts, ends, _ = split_long(data, starts, ends, normalized)
    for first, last in slices(starts, ends):
        values, after, _ = split(data, starts[first:last], ends[first:last], normalized, edges)
        is_text = np.ones(len(values), bool)
        is_text[after - 1] = False
        distinct = values.filter(pa.array(is_text)).value_counts()
        yield distinct.field("values"), distinct.field("counts").to_numpy()


def slices(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of sentences of about `SLICE_BYTES` together, at least one each."""
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + SLICE_BYTES, "right")))
        yield first, last
        first = last


def split_long(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits sentences of more than `SLICE_BYTES` between pre-tokens into pieces of at most that size, where pre-tokens allow.

    Returns (starts, ends, whether the sentence continues in the next piece) of all sentences and pieces.
    """
    long = np.flatnonzero(ends - starts > SLICE_BYTES)
    if not long.size:
        return starts, ends, np.zeros(len(starts), bool)
    cuts, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index in long.tolist():
        cuts.append(np.array(_cuts(data, int(starts[index]), int(ends[index]), normalized), np.int64))
        owners.append(np.full(len(cuts[-1]), index, np.int64))
    all_cuts, owner = np.concatenate(cuts), np.concatenate(owners)
    continues = np.insert(np.zeros(len(ends), bool), owner, True)
    return np.insert(starts, owner + 1, all_cuts), np.insert(ends, owner, all_cuts), continues


def gather(pool: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs pool[starts[i] : starts[i] + lengths[i]], end to end."""
    after = np.cumsum(lengths, dtype=np.int64)
    index = np.repeat(starts - (after - lengths), lengths)
    index += np.arange(len(index), dtype=index.dtype)
    return pool[index]


def _strings(text: np.ndarray, offsets: np.ndarray) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))


def _are_words(edges: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: np.ndarray, last: np.ndarray, inside: np.ndarray) -> bool:
    """`PreTokens.are_words` of sentences that contain the openings [first, last); `inside`: whether each opening is in a sentence."""
    if not len(edges) or edges[0] > 0 or len(inside) < len(edges) // 2 - 1:
        return False
    word_starts, word_ends = edges[::2], edges[1::2]  # word n + 1 follows opening n
    if (starts < word_starts[first]).any() or (ends > word_ends[last]).any():
        return False
    return not (inside & (word_starts[1:] - word_ends[:-1] > 1)).any()


def _openings(text: np.ndarray, edges: np.ndarray, normalized: bool) -> np.ndarray:
    """Where pre-tokens may begin within sentences: ascending int32 indices of whitespace bytes before words; `edges`: of `text`."""
    openings = edges[2 if len(edges) and edges[0] == 0 else 0 :: 2] - 1
    if text.max(initial=0) < 0x80 and not has_control(text):
        return openings
    following = text[openings + 1]
    separable = (following >= 0x21) & (following != 0x7F)
    if normalized:
        separable &= following < 0x7F
    spaces = text[openings]
    return openings[((spaces - np.uint8(0x09) < 5) | (spaces == 0x20)) & separable]


def _cuts(data: np.ndarray, start: int, end: int, normalized: bool) -> list[int]:
    """Openings at most `SLICE_BYTES` apart in the sentence [start, end), where there are any."""
    cuts: list[int] = []
    width = SLICE_BYTES
    while start + width < end:
        stop = next_character(data, start + width)
        openings = _openings(data[start:stop], word_edges(data[start:stop]), normalized)
        if len(openings) and openings[-1] > 0:
            start += int(openings[-1])
            cuts.append(start)
            width = SLICE_BYTES
        else:
            width *= 2
    return cuts


def _flatten(step: dict[str, Any]) -> list[dict[str, Any]]:
    inner = step.get("normalizers", step.get("pretokenizers"))
    return [step] if inner is None else [flat for part in inner for flat in _flatten(part)]


def _is_byte_level(step: dict[str, Any]) -> bool:
    return step["type"] == "ByteLevel" and not step["add_prefix_space"] and bool(step["use_regex"])


def _is_character_split(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" and step["pattern"] == {"Regex": r"[\s\S]"} and step["behavior"] == "Isolated" and not step["invert"]

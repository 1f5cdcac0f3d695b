"""Text cut where no token can cross, so that whatever looks at its words looks at each distinct one only once.

A chunk begins a sentence, or it begins with the one ASCII white-space character (tab to carriage return, or space) before a character
that is not white space. Every pre-tokenizer that `unsafe` lets pass ends a token there: those that split at white space do so anyway,
and in a run of white space the expression of byte-level pre-tokenizers (`\\s+(?!\\S)`) leaves the last character to the word that
follows, whether that word is in sight or the text ends. So the ids of a sentence are those of its chunks, end to end.

With a normalizer, chunks begin only before ASCII letters, digits and marks, which combine with nothing before them.

Shapes: B bytes, S sentences, C chunks and ends of sentences.
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

SLICE = 1 << 23
"""Bytes of text looked at a time: bounds memory, changes nothing else."""

_NORMALIZERS = ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents")
_SPACES = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")
_WITHIN_WORDS = (*_SPACES, "ByteLevel", "Digits", "Punctuation", "Split")
_MODELS = ("BPE", "WordLevel", "WordPiece", "Unigram")


class Chunks(NamedTuple):
    """Some sentences as chunks, an end of sentence after each."""

    values: pa.StringArray
    """[C] every chunk in order, and after those of a sentence what lies between it and the next. The chunks, joined, are the sentence."""
    ends: np.ndarray
    """[S] int64: index in `values` after what follows each sentence, which stands for its end."""
    are_words: bool
    """Whether it is certain that every chunk is one word, with nothing but one white-space byte before it."""

    def first_bytes(self, index: np.ndarray) -> np.ndarray:
        """uint8: the first byte of each of some chunks, which must not be empty."""
        _, offsets, text = self.values.buffers()
        return np.frombuffer(text, np.uint8)[np.frombuffer(offsets, np.int32)[index]]


def unsafe(tokenizer: Tokenizer) -> str | None:
    """Why the ids of a text may differ from those of its chunks; None where they don't."""
    added = tokenizer.get_added_tokens_decoder().values()
    if any(not token.special for token in added) or (added and not tokenizer.encode_special_tokens):
        return "it has added tokens, which are found anywhere in text"
    if tokenizer.truncation or tokenizer.padding:
        return "it cuts or pads what it encodes"
    for step in steps(tokenizer.normalizer):
        if step["type"] not in _NORMALIZERS:
            return f"its normalizer has a step {step['type']}"
    model = type(tokenizer.model).__name__
    if model not in _MODELS:
        return f"its model is {model}"
    if getattr(tokenizer.model, "dropout", None):
        return "its merges are left to chance (dropout)"
    first, *others = steps(tokenizer.pre_tokenizer) or [{"type": "nothing"}]
    if first["type"] in _SPACES:
        crossing = [step["type"] for step in others if step["type"] not in _WITHIN_WORDS]
        return f"its pre-tokenizer has a step {crossing[0]}" if crossing else None
    if not others and (_whole_byte_level(first) or _characters(first)):
        return None
    return f"its pre-tokenizer begins with {first['type']}" + (f" and goes on with {others[0]['type']}" if others else "")


def steps(part: Normalizer | PreTokenizer | None) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer as its JSON has them, those of sequences in sequences included."""
    return [] if part is None else _flat(json.loads(part.__getstate__()))


def chunks(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool, edges: np.ndarray | None = None) -> Chunks:
    """Cuts sentences into chunks.

    Args:
        data: [B] uint8, UTF-8 text.
        starts, ends: [S] of sentences in it, rising; what lies between them is passed over.
        normalized: whether a normalizer looks at the text.
        edges: `word_edges` of the text, where they are known.
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
    is_cut = np.ones(len(offsets), bool)
    firsts = np.concatenate([[0], after[:-1]])
    is_cut[firsts] = is_cut[after - 1] = is_cut[-1] = False
    offsets[is_cut] = openings[inside]
    offsets[firsts], offsets[after - 1], offsets[-1] = starts, ends, ends[-1]
    values = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
    return Chunks(values, after, _are_words(edges, starts, ends, first, last, inside))


def _are_words(edges: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: np.ndarray, last: np.ndarray, inside: np.ndarray) -> bool:
    """`Chunks.are_words` of sentences that openings [first, last) are in; `inside` says of each opening whether it is in one."""
    if not len(edges) or edges[0] > 0 or len(inside) < len(edges) // 2 - 1:
        return False
    begins, stops = edges[::2], edges[1::2]  # word n + 1 follows opening n
    if (starts < begins[first]).any() or (ends > stops[last]).any():
        return False
    return not (inside & (begins[1:] - stops[:-1] > 1)).any()


def counts(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool, edges: np.ndarray | None = None
) -> Iterator[tuple[pa.StringArray, np.ndarray]]:
    """The distinct chunks of sentences and how often each occurs (int64), for one slice of the text after another.

    Arguments are those of `chunks`. A chunk that begins with white space and one that begins a sentence are two.
    """
    long_cut = whole_slices(data, starts, ends, normalized)
    for first, last in slices(long_cut[0], long_cut[1]):
        values, after, _ = chunks(data, long_cut[0][first:last], long_cut[1][first:last], normalized, edges)
        is_text = np.ones(len(values), bool)
        is_text[after - 1] = False
        found = values.filter(pa.array(is_text)).value_counts()
        yield found.field("values"), found.field("counts").to_numpy()


def slices(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of sentences of about `SLICE` bytes together, at least one each."""
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + SLICE, "right")))
        yield first, last
        first = last


def whole_slices(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, normalized: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentences of more than `SLICE` bytes cut at chunks into parts of at most so many, if there are chunks so small.

    Returns (starts, ends, whether the sentence goes on in the next part) of all sentences and parts.
    """
    long = np.flatnonzero(ends - starts > SLICE)
    if not long.size:
        return starts, ends, np.zeros(len(starts), bool)
    places, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index in long.tolist():
        found = np.array(_cuts(data, int(starts[index]), int(ends[index]), normalized), np.int64)
        places.append(found)
        owners.append(np.full(len(found), index, np.int64))
    cuts, owner = np.concatenate(places), np.concatenate(owners)
    part_ends = np.insert(ends, owner, cuts)
    goes_on = np.insert(np.zeros(len(ends), bool), owner, True)
    return np.insert(starts, owner + 1, cuts), part_ends, goes_on


def gather(pool: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs pool[starts[i] : starts[i] + lengths[i]], end to end."""
    after = np.cumsum(lengths, dtype=np.int64)
    index = np.repeat(starts - (after - lengths), lengths)
    index += np.arange(len(index), dtype=index.dtype)
    return pool[index]


def _openings(text: np.ndarray, edges: np.ndarray, normalized: bool) -> np.ndarray:
    """Where a chunk may begin: int32 indices of the white-space bytes before words, rising; `edges` are those of `text`."""
    openings = edges[2 if len(edges) and edges[0] == 0 else 0 :: 2] - 1
    if text.max(initial=0) < 0x80 and not has_control(text):
        return openings
    following = text[openings + 1]
    goes_on = (following >= 0x21) & (following != 0x7F)
    if normalized:
        goes_on &= following < 0x7F
    spaces = text[openings]
    return openings[((spaces - np.uint8(0x09) < 5) | (spaces == 0x20)) & goes_on]


def _cuts(data: np.ndarray, start: int, end: int, normalized: bool) -> list[int]:
    found: list[int] = []
    width = SLICE
    while start + width < end:
        stop = next_character(data, start + width)
        openings = _openings(data[start:stop], word_edges(data[start:stop]), normalized)
        if len(openings) and openings[-1] > 0:
            start += int(openings[-1])
            found.append(start)
            width = SLICE
        else:
            width *= 2
    return found


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    inner = step.get("normalizers", step.get("pretokenizers"))
    return [step] if inner is None else [found for part in inner for found in _flat(part)]


def _whole_byte_level(step: dict[str, Any]) -> bool:
    return step["type"] == "ByteLevel" and not step["add_prefix_space"] and bool(step["use_regex"])


def _characters(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" and step["pattern"] == {"Regex": r"[\s\S]"} and step["behavior"] == "Isolated" and not step["invert"]

"""From tokens to words: the surprisal of each white-space word of a text, whatever the tokenizer made of it.

A word's surprisal is the sum over its tokens, and the end of a word belongs to the word that ends: where a token begins with the white
space before the next word, the chance that any such token comes is a factor of the word before, and the rest is the next word's (Pimentel
and Meister 2024; Oh and Schuler 2024). The words and the end of the sentence add up to the sentence.

Shapes: S sentences, N tokens of all of them end to end, `<eos>` included, W words of all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from packlm.text.encoder import Encoder

Array = np.ndarray


@dataclass(frozen=True)
class SentenceWords:
    """The words of some sentences."""

    texts: list[list[str]]
    """The words of each sentence, as they are written."""
    owners: Array
    """[N] the word that each token belongs to, counted over all sentences, each of which has one more for its `<eos>`."""
    firsts: Array
    """[W + S] the first token of each word, and the `<eos>` of each sentence."""
    ends: Array
    """[S] the number after each sentence's last one."""


def words_of(encoder: Encoder, texts: Sequence[str]) -> SentenceWords:
    """Finds the words of sentences, and the tokens that belong to each."""
    starts, ends = encoder.offsets(texts)
    words, owners, ends_of_words, before = [], [], [], 0
    for text, own in zip(texts, np.split(starts, ends[:-1]), strict=True):
        found = list(re.finditer(r"\S+", text))
        words.append([match.group() for match in found])
        # A token that begins with white space, or is nothing else, belongs to the word behind it.
        behind = np.searchsorted(np.array([match.end() for match in found], np.int64), own, side="right")
        behind[-1] = len(found)
        owners.append(np.maximum.accumulate(behind) + before)
        before += len(found) + 1
        ends_of_words.append(before)
    all_owners = np.concatenate([np.empty(0, np.int64), *owners])
    return SentenceWords(words, all_owners, np.searchsorted(all_owners, np.arange(before)), np.array(ends_of_words, np.int64))


def surprisals(words: SentenceWords, losses: Array, boundaries: Array, ends: Array) -> Array:
    """[W + S] surprisal of each word and of the end of each sentence, in the unit of the losses.

    Args:
        losses: [N] of each token.
        boundaries: [N] -log P that the token before was the last of its word, given all tokens before; 0 where tokens do not say.
        ends: [S] index after each sentence's last token.
    """
    opening = np.zeros(len(losses), bool)
    opening[1:] = words.owners[1:] != words.owners[:-1]
    opening[ends[:-1]] = False  # nothing ends before a sentence's first word
    moved = np.where(opening, boundaries, 0.0)
    count = int(words.ends[-1]) if len(words.ends) else 0
    found = np.bincount(words.owners, losses - moved, count)
    given = np.flatnonzero(opening)
    return found + np.bincount(words.owners[given - 1], moved[given], count)

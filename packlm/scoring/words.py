"""From tokens to words: the surprisal of each whitespace-separated word of a text, for any tokenizer.

A word's surprisal is the sum over its tokens, and the end of a word belongs to the word that ends: where a token begins with the whitespace
before the next word, the probability that any such token follows is a factor of the word before, and the rest belongs to the next word
(Pimentel and Meister 2024; Oh and Schuler 2024). The words and the end of the sentence sum to the surprisal of the sentence.

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
    """The words of sentences. Indices count all sentences' words, and for each sentence one more for its `<eos>`."""

    texts: list[list[str]]
    """The words of each sentence."""
    owners: Array
    """[N] index of the word that each token belongs to."""
    firsts: Array
    """[W + S] first token of each word."""
    ends: Array
    """[S] index after each sentence's last word."""


def words_of(encoder: Encoder, texts: Sequence[str]) -> SentenceWords:
    """Finds the words of sentences, and the tokens that belong to each."""
    starts, ends = encoder.offsets(texts)
    words, owners, word_ends, first_word = [], [], [], 0
    for text, token_starts in zip(texts, np.split(starts, ends[:-1]), strict=True):
        matches = list(re.finditer(r"\S+", text))
        words.append([match.group() for match in matches])
        # A token that begins with whitespace, or consists of it, belongs to the next word.
        word_of_token = np.searchsorted(np.array([match.end() for match in matches], np.int64), token_starts, side="right")
        word_of_token[-1] = len(matches)
        owners.append(np.maximum.accumulate(word_of_token) + first_word)
        first_word += len(matches) + 1
        word_ends.append(first_word)
    all_owners = np.concatenate([np.empty(0, np.int64), *owners])
    return SentenceWords(words, all_owners, np.searchsorted(all_owners, np.arange(first_word)), np.array(word_ends, np.int64))


def surprisals(words: SentenceWords, losses: Array, boundaries: Array, ends: Array) -> Array:
    """[W + S] surprisal of each word and of the end of each sentence, in the unit of the losses.

    Args:
        losses: [N] of each token.
        boundaries: [N] -log P that the previous token ends its word, given all tokens before; 0 if tokens do not mark words.
        ends: [S] index after each sentence's last token.
    """
    opening = np.zeros(len(losses), bool)
    opening[1:] = words.owners[1:] != words.owners[:-1]
    opening[ends[:-1]] = False  # no word ends before the first word of a sentence
    moved = np.where(opening, boundaries, 0.0)
    count = int(words.ends[-1]) if len(words.ends) else 0
    openings = np.flatnonzero(opening)
    totals = np.bincount(words.owners, losses - moved, count)
    return totals + np.bincount(words.owners[openings - 1], moved[openings], count)
